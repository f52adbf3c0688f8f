"""Messages of secure aggregation on their way down, masked uploads on disk, transcripts in a row."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from coordinator.errors import BlobCorrupt, BlobMissing, StorageFailed
from coordinator.secure_aggregation.outbox import MAX_INLINE_BYTES, MaskedOutbox
from coordinator.secure_aggregation.transcripts import Transcripts
from coordinator.store.files.spool import MaskedSpool
from coordinator.workers.sessions import Session, SessionTable
from secure.secure_rounds import offer_for
from ssd.digest import CHUNK_BYTES, digest_bytes
from ssd.secagg.audit import transcript
from ssd.secagg.protocol.messages import Opened, encode
from ssd_wire.messages import Capabilities, SecureMessage

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


def sent(to: Session) -> list[SecureMessage]:
    return [each for each in to.outbox._queue if isinstance(each, SecureMessage)]  # type: ignore[attr-defined]


def test_large_messages_are_blobs_for_their_worker_and_each_goes_once_a_session() -> None:
    sessions = SessionTable()
    first, second = session("w1", "a"), session("w2", "b")
    sessions.add(first)
    sessions.add(second)
    delivery = MaskedOutbox(ROUND, sessions)
    for _ in range(2):
        delivery.deliver(TwoDue())  # type: ignore[arg-type]
    small, large = sent(first)
    assert (small.content, small.blob, large.content) == (b"s", None, b"")
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


def model(version: int) -> bytes:
    return hashlib.sha256(f"version {version}".encode()).digest()


def models(newest: int) -> dict[int, str]:
    """The digests of a run's versions, as `recover` takes them."""
    return {version: model(version).hex() for version in range(newest + 1)}


def told(number: int, base: bytes | None = None, made: bytes | None = None) -> list[bytes]:
    """The first and the last message of a round."""
    offer = offer_for(10, round=number, model_digest=model(number - 1) if base is None else base)
    opened = Opened(
        opened_digest=bytes(32), survivors=9, next_model_digest=model(number) if made is None else made
    )
    return [encode(offer), encode(opened)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_transcripts_continue_one_another_and_are_written_once(tmp_path: Path) -> None:
    kept = Transcripts(tmp_path)
    kept.write(1, ROUND, told(1))
    assert names(tmp_path) == [f"round-000001-{ROUND.hex()}.part"]
    kept.keep(1, ROUND)
    kept.write(2, OTHER, told(2))
    kept.keep(2, OTHER)
    first, second = sorted(tmp_path.iterdir())
    before = first.read_bytes()
    kept.write(1, ROUND, told(1, made=model(7)))
    kept.keep(1, ROUND)
    assert first.read_bytes() == before
    assert transcript.read(second.read_bytes()).before == transcript.read(before).head


@pytest.mark.parametrize(
    ("made", "newest", "suffixes"), [(1, 1, [".transcript"]), (1, 0, []), (7, 1, [".part"])]
)
def test_after_a_restart_the_transcript_of_a_committed_round_is_kept_and_one_still_to_be_committed_goes(
    tmp_path: Path, made: int, newest: int, suffixes: list[str]
) -> None:
    kept = Transcripts(tmp_path)
    kept.write(1, ROUND, told(1, made=model(made)))
    for _ in range(2):
        kept.recover(models(newest), due=None if newest else 1)
        assert [path.suffix for path in tmp_path.iterdir()] == suffixes


def test_a_round_that_changes_nothing_has_a_transcript_once_it_is_committed_and_not_before(
    tmp_path: Path,
) -> None:
    """Its model is that of the version before: to look for that among all versions would keep it without a commit."""
    kept, same = Transcripts(tmp_path), told(2, made=model(1))
    kept.write(1, OTHER, told(1))
    kept.keep(1, OTHER)
    kept.write(2, ROUND, same)
    kept.recover(models(1), due=2)
    assert names(tmp_path) == [f"round-000001-{OTHER.hex()}.transcript"]
    kept.write(2, ROUND, same)
    kept.recover({**models(1), 2: model(1).hex()}, due=3)
    first, second = (transcript.read(path.read_bytes()) for path in sorted(tmp_path.iterdir()))
    assert second.before == first.head


def test_a_transcript_that_is_there_is_not_replaced_after_a_restart(tmp_path: Path) -> None:
    kept = Transcripts(tmp_path)
    kept.write(1, ROUND, told(1))
    kept.keep(1, ROUND)
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()
    kept.write(1, ROUND, told(1))
    kept.recover(models(1), due=None)
    assert names(tmp_path) == [path.name]
    assert path.read_bytes() == before


@pytest.mark.parametrize("due", [None, 1, 2])
@pytest.mark.parametrize("number", [1, 2, 9])
def test_what_another_run_left_is_not_touched(tmp_path: Path, number: int, due: int | None) -> None:
    kept = Transcripts(tmp_path)
    kept.write(number, ROUND, told(number, base=bytes(32), made=model(1)))
    kept.recover(models(1), due=due)
    assert names(tmp_path) == [f"round-{number:06d}-{ROUND.hex()}.part"]


def test_the_first_round_of_a_run_that_began_with_the_same_model_is_not_touched(tmp_path: Path) -> None:
    kept = Transcripts(tmp_path)
    kept.write(1, ROUND, told(1))
    kept.recover(models(0), due=None)
    assert names(tmp_path) == [f"round-000001-{ROUND.hex()}.part"]


@pytest.mark.parametrize("content", ["cut off", "empty", "only the offer", "no offer"])
def test_what_is_no_whole_transcript_is_removed_after_a_restart(tmp_path: Path, content: str) -> None:
    first, last = told(1)
    whole = transcript.write([first, last])
    part = tmp_path / f"round-000001-{ROUND.hex()}.part"
    part.write_bytes(
        {
            "cut off": whole[:-1],
            "empty": b"",
            "only the offer": transcript.write([first]),
            "no offer": transcript.write([last]),
        }[content]
    )
    Transcripts(tmp_path).recover(models(1), due=2)
    assert names(tmp_path) == []
