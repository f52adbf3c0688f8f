"""What a participant keeps of the attempts it uploaded for: written before anything follows from it."""

from __future__ import annotations

import pytest

from secure.secure_rounds import Federation, Remembered, names_of, offer_for
from ssd.secagg.client.receipts import Receipt
from ssd.secagg.protocol.errors import Refused
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import digest

NAMES = names_of(5)


class FullDisk(Remembered):
    """A disk that is full when a receipt is due, or a set to be signed."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def remember_upload(self, receipt: Receipt) -> None:
        if self._what == "upload":
            raise OSError("full")
        super().remember_upload(receipt)

    def remember_signed(self, round_id: bytes, names: tuple[str, ...], survivor_hash: bytes) -> None:
        if self._what == "signed":
            raise OSError("full")
        super().remember_signed(round_id, names, survivor_hash)


def test_no_mask_without_a_receipt() -> None:
    f = Federation(offer=offer_for(5), names=NAMES, memories={NAMES[0]: FullDisk("upload")})
    f.advertise(NAMES)
    f.share(NAMES)
    f.deliver(NAMES)
    with pytest.raises(OSError, match="full"):
        f[NAMES[0]].masks()
    with pytest.raises(Refused):
        f[NAMES[0]].masks()


def test_no_signature_of_a_set_that_is_not_kept() -> None:
    f = Federation(offer=offer_for(5), names=NAMES, memories={NAMES[0]: FullDisk("signed")})
    f.until_uploaded()
    with pytest.raises(OSError, match="full"):
        f[NAMES[0]].survivors(f.aggregator.close_uploads())


@pytest.mark.parametrize("level", [Level.PASSIVE, Level.ACTIVE])
def test_a_receipt_says_who_was_there_and_what_was_signed(level: Level) -> None:
    f = Federation(offer=offer_for(5, level), names=NAMES)
    f.until_uploaded()
    (receipt,) = f.memories[NAMES[1]].receipts.values()
    assert receipt == Receipt(
        round_id=f.offer.round_id,
        base_digest=f.offer.model_digest,
        round=1,
        attempt=1,
        level=level,
        roster=NAMES,
        threshold=4 if level is Level.ACTIVE else 3,
        corrupt=1,
    )
    survivors = f.survive(NAMES)
    (receipt,) = f.memories[NAMES[1]].receipts.values()
    assert (receipt.signed, receipt.survivors_digest) == (NAMES, digest(survivors))
