"""Messages of secure aggregation on their way down, masked uploads on disk, transcripts in a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coordinator.errors import BlobCorrupt, BlobMissing, StorageFailed
from coordinator.messages import Capabilities, Secure
from coordinator.secure_delivery import MAX_INLINE_BYTES, SecureDelivery
from coordinator.secure_transcripts import Transcripts
from coordinator.sessions import Session, SessionTable
from coordinator.store.spool import MaskedSpool
from ssd.digest import CHUNK_BYTES, digest_bytes
from ssd.secagg import transcript
from ssd.secagg.messages import AbortNotice, encode

ROUND, OTHER = bytes(range(16)), bytes(16)
BODY = np.arange(CHUNK_BYTES + 77, dtype=np.uint32).view(np.uint8)[: CHUNK_BYTES + 77]


class TwoDue:
    """An attempt with one small and one large message for everybody."""

    def due(self, worker: str) -> list[str]:
        return ["small", "large"]

    def content(self, name: str, worker: str) -> bytes:
        return b"s" if name == "small" else worker.encode() * (MAX_INLINE_BYTES // len(worker) + 1)


def session(worker: str, token: str) -> Session:
    return Session(
        token=token,
        worker=worker,
        instance=worker,
        clients=frozenset(),
        capabilities=Capabilities(),
        last_seen=0.0,
    )


def sent(to: Session) -> list[Secure]:
    return [each for each in to.outbox._queue if isinstance(each, Secure)]  # type: ignore[attr-defined]


def test_large_messages_are_blobs_for_their_worker_and_each_goes_once_a_session() -> None:
    sessions = SessionTable()
    first, second = session("w1", "a"), session("w2", "b")
    sessions.add(first)
    sessions.add(second)
    delivery = SecureDelivery(ROUND, sessions)
    for _ in range(2):
        delivery.deliver(TwoDue())  # type: ignore[arg-type]
    small, large = sent(first)
    assert (small.message, small.blob, large.message) == (b"s", None, b"")
    assert large.blob is not None
    content = TwoDue().content("large", "w1")
    reader = delivery.open(large.blob.digest, "w1")
    assert reader is not None
    assert reader.read(0, large.blob.size) == content
    assert large.blob.digest == digest_bytes(content)
    assert delivery.open(large.blob.digest, "w2") is None
    assert delivery.open("0" * 64, "w1") is None
    again = session("w1", "c")
    sessions.add(again)
    delivery.deliver(TwoDue())  # type: ignore[arg-type]
    assert [len(sent(each)) for each in (first, second, again)] == [2, 2, 2]


def test_a_masked_upload_comes_back_as_it_was_or_not_at_all(tmp_path: Path) -> None:
    spool = MaskedSpool(tmp_path / "masked")
    with pytest.raises(BlobMissing):
        spool.get(ROUND, "w1")
    spool.put(ROUND, "w1", BODY[:10])
    spool.put(ROUND, "w1", BODY)
    assert np.array_equal(spool.get(ROUND, "w1"), BODY)
    assert len(list((tmp_path / "masked" / ROUND.hex()).iterdir())) == 1
    spool.put(OTHER, "../../w1", BODY)
    assert not list(tmp_path.glob("w1*"))
    spool.drop_all_but(ROUND)
    with pytest.raises(BlobMissing):
        spool.get(OTHER, "../../w1")
    (file,) = (tmp_path / "masked" / ROUND.hex()).iterdir()
    content = bytearray(file.read_bytes())
    content[CHUNK_BYTES + 5] ^= 1
    file.write_bytes(content)
    with pytest.raises(BlobCorrupt):
        spool.get(ROUND, "w1")
    spool.drop_all_but(None)
    assert not list((tmp_path / "masked").iterdir())


def test_a_medium_that_refuses_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "masked").write_text("in the way")
    with pytest.raises(StorageFailed):
        MaskedSpool(tmp_path / "masked").put(ROUND, "w1", BODY)
    with pytest.raises(StorageFailed):
        Transcripts(tmp_path / "masked").write(1, ROUND, [])


def test_transcripts_continue_one_another_and_are_written_once(tmp_path: Path) -> None:
    kept = Transcripts(tmp_path / "transcripts")
    message = encode(AbortNotice(reason="abandoned", detail=""))
    for number, round_id in ((1, ROUND), (2, OTHER)):
        kept.write(number, round_id, [message])
        kept.keep(number, round_id)
    first, second = sorted((tmp_path / "transcripts").iterdir())
    before = first.read_bytes()
    kept.keep(1, ROUND)
    assert first.read_bytes() == before
    assert transcript.read(second.read_bytes()).before == transcript.read(before).head
