"""A version's delta is kept where somebody would fetch it, and the version is the same with and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coordinator.core.strategies.average import Average
from coordinator.store.files.blobs import FileBlobs
from coordinator.versions.next_version import VersionMaker
from rounds.fold_samples import fold_of, sample_plan, sample_update
from ssd.updates.codec import Encoding
from ssd.updates.spec import model_digest


@pytest.mark.parametrize("encoding", list(Encoding))
def test_a_delta_that_is_no_smaller_than_the_version_is_not_written(
    tmp_path: Path, encoding: Encoding
) -> None:
    plan = sample_plan(Encoding.FLOAT32)
    blobs = FileBlobs(tmp_path)
    writer = blobs.create()
    writer.write(np.zeros(plan.size, "<f4").tobytes())
    base = writer.finish()
    opened = fold_of(plan, [sample_update(plan, 1)]).open()
    made = VersionMaker(plan.declaration, Average(), encoding, blobs).make(
        opened, base, {}, lambda write: write()
    )
    reader = blobs.open(made.full.digest)
    vector = reader.map().view("<f4")
    reader.close()
    assert model_digest(plan.declaration.spec, vector) == made.model_digest
    if encoding is Encoding.FLOAT32:
        assert made.delta is None
        assert blobs.digests() == {base.digest, made.full.digest}
    else:
        assert made.delta is not None
        assert made.delta.size < made.full.size
