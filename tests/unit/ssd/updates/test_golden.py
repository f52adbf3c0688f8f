"""Golden vectors: bits that other hosts, other releases and stored files rely on.

They live in `tests/golden/*.json`, written by `tests/golden/regenerate.py` (read its docstring before you run it).
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssd.updates.codec import Encoding, VectorCodec
from ssd.updates.spec import Kind, ParameterSpec

FOLDER = Path(__file__).resolve().parents[3] / "golden"
CASES: dict[str, Any] = runpy.run_path(str(FOLDER / "regenerate.py"))["cases"]()


@pytest.mark.parametrize("name", sorted(CASES))
def test_todays_code_makes_the_stored_bits(name: str) -> None:
    stored = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    assert json.loads(json.dumps(CASES[name])) == stored


def test_every_stored_file_is_checked() -> None:
    assert {path.name for path in FOLDER.glob("*.json")} == set(CASES)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_stored_bodies_decode_to_the_stored_bits(encoding: Encoding) -> None:
    stored = json.loads((FOLDER / "codec.json").read_text(encoding="utf-8"))
    spec = ParameterSpec.build(
        [
            ("layer.weight", (4, 2), "encoder", Kind.PARAMETER),
            ("layer.bias", (5,), "encoder", Kind.PARAMETER),
            ("norm.mean", (3,), "buffers", Kind.BUFFER),
            ("norm.var", (4,), "buffers", Kind.VARIANCE),
        ]
    )
    assert spec.digest == stored["spec_digest"]
    codec = VectorCodec(spec, {"encoder": encoding, "buffers": Encoding.FLOAT32})
    decoded = codec.decode(bytes.fromhex(stored["encodings"][encoding.value]["body"]))
    assert decoded.astype("<f4").tobytes().hex() == stored["encodings"][encoding.value]["decoded"]
    assert np.isfinite(decoded).all()
