"""A guard over everything that uses up a key of secure aggregation in this process: a second use fails the test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from ssd.secagg.numbers.masked_fold import MaskedFold
from ssd.secagg.numbers.masking import MaskKey
from ssd.secagg.protocol import keys

KNOWN = bytes(32)
"""What tests mask with to unmask it themselves."""


class KeyUses:
    """AES-GCM keys and nonces are used once; a mask covers one vector, with no byte of its stream in two places."""

    def __init__(self) -> None:
        self.sealed: set[bytes] = set()
        self.nonces: set[bytes] = set()
        self.covered: dict[MaskKey, bytes] = {}
        """Mask and sign, which is one participant's -> digest of the vector it was added to."""

    def seal(self, key: bytes, nonce: bytes) -> None:
        assert key not in self.sealed, "an AES-GCM key encrypted two messages"
        assert nonce not in self.nonces, "a nonce was used twice"
        self.sealed.add(key)
        self.nonces.add(nonce)

    def mask(self, fold: MaskedFold, masks: Sequence[MaskKey]) -> None:
        assert fold.plan.wide_start >= fold._narrow.nbytes, "two parts of a vector share bytes of a stream"
        vector = hashlib.sha256(fold._narrow.tobytes() + fold._wide.tobytes()).digest()
        assert len({mask.key for mask in masks}) == len(masks), "a mask was added twice to one vector"
        for mask in masks:
            if mask.key == KNOWN:
                continue
            # The same vector once more is the same bytes: they may be sent again.
            assert self.covered.setdefault(mask, vector) == vector, "a mask was added to two vectors"
            assert mask.key not in self.sealed, "a mask key encrypted something"


@contextmanager
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyUses]:
    """Watch until the end of the block."""
    uses = KeyUses()

    def seal(key: bytes, nonce: bytes, *rest: bytes) -> bytes:
        uses.seal(key, nonce)
        return original_seal(key, nonce, *rest)

    def add_masks(self: MaskedFold, masks: Sequence[MaskKey], threads: int = 1) -> None:
        uses.mask(self, masks)
        original_add(self, masks, threads)

    original_seal, original_add = keys.seal, MaskedFold.add_masks
    with monkeypatch.context() as patch:
        patch.setattr(keys, "seal", seal)
        patch.setattr(MaskedFold, "add_masks", add_masks)
        yield uses
