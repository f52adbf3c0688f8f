"""The body of a masked upload: quantise every finished update, add the masks, write the wire bytes to a file.

Rules it keeps:

- The masks of a round id lie on one vector only: once a body is on disk whole, the very same bytes are sent, however
  often. If making it fails nothing of it was sent, and it is made again from the start.
- An update that fails its check is left out and reported; the rest is masked.
- Memory is one vector of the model and a few chunks, whatever the number of clients; the file is private, holds nothing
  that the coordinator will not get, and goes when the round does.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssd.secagg.numbers.masked_fold import MaskedFold
from ssd.secagg.numbers.masked_plan import MaskedPlan
from ssd.secagg.numbers.masking import MaskKey
from ssd.updates.check import UpdateRefused
from ssd_wire.messages import UpdateKey
from worker.core.finished import Finished
from worker.errors import StorageFailed
from worker.store.files import map_file, storage_faults

Failures = Mapping[UpdateKey, tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedBody:
    """A masked upload on disk."""

    path: Path
    size: int
    """Bytes."""
    chunk_digests: bytes
    """SHA-256 of every 1 MiB chunk, concatenated."""
    updates: tuple[Finished, ...]
    """What is in it."""


def make_body(
    plan: MaskedPlan,
    updates: Sequence[Finished],
    body_path: Callable[[UpdateKey], Path],
    rounding_key: Callable[[str], bytes],
    masks: Callable[[], Sequence[MaskKey]],
    target: Path,
    threads: int = 1,
    entropy: Callable[[int], bytes] = os.urandom,
) -> tuple[MaskedBody | None, Failures]:
    """Write the masked fold of these updates to `target`.

    Args:
        plan: layout of updates and masked vectors.
        updates: finished clients of the attempt.
        body_path: where an update's float32 body lies.
        rounding_key: 32 bytes for a client.
        masks: asked once, when there is something to mask.
        target: made anew, for its owner alone.
        threads: that make the masks.
        entropy: n secret uniform bytes, for noise.

    Returns:
        The body, None if no update passed its check; and the updates that did not, with reason and detail.

    Raises:
        StorageFailed: the file cannot be written whole; what there is of it must not be sent.
    """
    fold = MaskedFold(plan)
    folded: list[Finished] = []
    failures: dict[UpdateKey, tuple[str, str]] = {}
    for finished in updates:
        try:
            body = map_file(body_path(finished.key))
            fold.add_client(body, finished.weight, rounding_key(finished.key.client))
        except UpdateRefused as refused:
            failures[finished.key] = (refused.reason.value, refused.detail)
        except StorageFailed as error:
            failures[finished.key] = ("storage", str(error))
        else:
            folded.append(finished)
    if not folded:
        return None, failures
    if plan.noise is not None:
        # From fresh entropy each time: bytes that were sent are read from the file again, never made again.
        fold.add_noise(entropy)
    fold.add_masks(masks(), threads)
    digests: list[bytes] = []
    with storage_faults(target.parent):
        target.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(target, flags, 0o600), "wb") as file:
            for chunk in fold.pack_chunks():
                digests.append(hashlib.sha256(chunk).digest())
                file.write(chunk)
    done = MaskedBody(path=target, size=plan.nbytes, chunk_digests=b"".join(digests), updates=tuple(folded))
    return done, failures
