"""Secure aggregation through the driver, in one process: whole rounds, dropouts in every phase, restarts at every step."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.core import events
from coordinator.core.state import Phase
from coordinator.secure_aggregation.transcripts import Transcripts
from secure.masked_place import CLIENTS, ELASTIC, THREE, Place, committed, die_at, model_of, play, registry_of
from ssd.secagg.audit import transcript
from ssd.secagg.audit.audit import Audited, audit, check_follows
from ssd.secagg.protocol.messages import AbortNotice, Offer, Opened, Roster, ShareDelivery


@pytest.mark.parametrize(
    "parts", [THREE, {"w1": "abc", "w2": "def"}, dict(zip("uvwxyz", CLIENTS, strict=True))]
)
def test_the_model_is_that_of_the_plain_sum_whoever_hosts_whom(tmp_path: Path, parts: dict[str, str]) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(parts)
        place.begin(*workers.values())
        await place.until(committed(place, 2))
        assert place.digests() == model_of(place, {1: "abcdef", 2: "abcdef"})
        for worker in workers.values():
            await place.until(lambda worker=worker: len(worker.said(Opened)) == 2)
        assert not list((tmp_path / "masked").iterdir())
        assert len(list((tmp_path / "transcripts").iterdir())) == 2

    play(scene, Place(tmp_path))


@pytest.mark.parametrize(
    ("level", "phase"),
    [
        ("passive", "Survivors"),
        ("passive", "verdict"),
        ("active", "Survivors"),
        ("active", "SetProof"),
        ("active", "verdict"),
    ],
)
def test_one_that_is_gone_after_its_upload_stays_in_the_sum(tmp_path: Path, level: str, phase: str) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers({"w1": "ab", "w2": "cd", "w3": "e", "w4": "f"})
        workers["w2"].dies_before = phase
        place.begin(*workers.values())
        await place.until(committed(place, 1))
        assert place.store.attempts()[-1].accepted == tuple("abcdef")
        assert place.digests() == model_of(place, {1: "abcdef"})

    play(scene, Place(tmp_path, rounds=1, level=level))


@pytest.mark.parametrize("phase", ["Offer", "Roster", "ShareDelivery", "upload"])
def test_one_that_lost_its_keys_before_its_upload_ends_a_reproducible_attempt(
    tmp_path: Path, phase: str
) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        workers["w2"].dies_before = phase
        place.begin(*workers.values())
        await place.until(place.tasks[1].done)
        place.begin(workers["w2"])
        await place.until(committed(place, 1))
        attempts = place.store.attempts()
        # Before its offer was answered nothing was lost: a new session gets it again.
        assert [each.outcome for each in reversed(attempts)][-1] == "committed"
        assert len(attempts) == (1 if phase == "Offer" else 2)
        if phase != "Offer":
            assert "no keys" in attempts[1].reason
            assert workers["w1"].said(AbortNotice)
            assert len({offer.round_id for offer in workers["w1"].said(Offer)}) == 2
        assert place.digests()[:2] == model_of(place, {1: "abcdef"})

    play(scene, Place(tmp_path, rounds=1))


@pytest.mark.parametrize("phase", ["Offer", "Roster", "ShareDelivery", "upload"])
def test_an_elastic_round_goes_on_without_one_that_went_away(tmp_path: Path, phase: str) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        workers["w2"].dies_before = phase
        place.begin(*workers.values())
        await place.until(place.tasks[1].done)
        await place.until(committed(place, 1))
        assert place.store.attempts()[-1].accepted == tuple("abef")
        assert place.digests()[:2] == model_of(place, {1: "abef"})

    play(scene, Place(tmp_path, rounds=1, **ELASTIC))


def test_too_many_dropouts_abandon_the_attempt_and_nothing_is_opened(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        for name in ("w2", "w3"):
            workers[name].dies_before = "ShareDelivery"
        place.begin(*workers.values())
        await place.until(lambda: any(each.outcome == "abandoned" for each in place.store.attempts()))
        assert place.now().machine.state.version == 0
        await place.until(lambda: bool(workers["w1"].said(AbortNotice)))
        assert not workers["w1"].memory.bases

    play(scene, Place(tmp_path, rounds=1, **ELASTIC))


def test_a_single_worker_is_refused_and_the_status_says_why(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        place.begin(*place.workers({"w1": "abcdef"}).values())
        await place.until(lambda: place.now().machine.state.phase is Phase.HALTED)
        assert "one participant alone would be laid open" in place.now().reports.status(0.0).waiting_for

    play(scene, Place(tmp_path))


STEPS = [
    ("passive", "close_attempt", "before", 1, 2),
    ("passive", "close_attempt", "after", 1, 1),
    ("passive", "close_attempt", "before", 2, 1),
    ("passive", "close_attempt", "after", 2, 1),
    ("passive", "commit", "before", 1, 1),
    ("active", "close_attempt", "before", 1, 2),
    ("active", "close_attempt", "after", 1, 1),
    ("active", "close_attempt", "before", 2, 1),
    ("active", "close_attempt", "after", 2, 1),
    ("active", "close_attempt", "after", 3, 1),
]


@pytest.mark.parametrize(("level", "write", "when", "count", "attempts"), STEPS)
def test_a_coordinator_that_dies_at_a_write_goes_on_with_a_journaled_set_or_with_new_keys(
    tmp_path: Path, level: str, write: str, when: str, count: int, attempts: int
) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        die_at(place.store, write, when, count)
        place.begin(*workers.values())
        await place.crashed()
        place.start()
        place.begin(*workers.values())
        await place.until(committed(place, 1))
        assert place.digests()[:2] == model_of(place, {1: "abcdef"})
        found = place.store.attempts()
        assert len(found) == attempts
        if attempts == 2:
            assert "coordinator_restarted" in found[1].reason
        assert len({offer.round_id for offer in workers["w1"].said(Offer)}) == attempts
        assert all(len(worker.verdicts) == attempts for worker in workers.values()), "a set is uploaded once"

    play(scene, Place(tmp_path, rounds=1, level=level))


@pytest.mark.parametrize(
    ("holder", "write", "when"),
    [
        ("store", "commit", "before"),
        ("store", "commit", "after"),
        ("keep", "keep", "before"),
        ("keep", "keep", "after"),
    ],
)
def test_a_coordinator_that_dies_around_the_commit_loses_neither_the_round_nor_its_transcript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holder: str, write: str, when: str
) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        with monkeypatch.context() as planted:
            if holder == "store":
                die_at(place.store, write, when)
            else:
                planted.setattr(Transcripts, write, getattr(Transcripts, write))
                die_at(Transcripts, write, when)
            place.begin(*workers.values())
            await place.crashed()
        left = sorted(path.suffix for path in (tmp_path / "transcripts").iterdir())
        assert left == [".transcript" if (holder, when) == ("keep", "after") else ".part"]
        place.start()
        place.begin(*workers.values())
        await place.until(committed(place, 2))
        assert place.digests() == model_of(place, {1: "abcdef", 2: "abcdef"})
        assert not place.store.secure_sum(1, 1)
        await place.until(lambda: not list((tmp_path / "transcripts").glob("*.part")))
        found: list[Audited] = []
        for path in sorted((tmp_path / "transcripts").iterdir()):
            each = audit(path.read_bytes(), None, before=found[-1].head if found else transcript.NO_HEAD)
            check_follows(found, each)
            found.append(each)
        assert [each.opened.next_model_digest.hex() for each in found] == place.digests()[1:]

    play(scene, Place(tmp_path, rounds=2))


def test_a_transcript_that_was_written_for_no_commit_is_removed(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        die_at(place.store, "commit", "before")
        place.begin(*workers.values())
        await place.crashed()
        (tmp_path / "transcripts" / "round-000009-00.part").write_bytes(b"cut of")
        place.start()
        await place.until(lambda: not list((tmp_path / "transcripts").iterdir()))

    play(scene, Place(tmp_path, rounds=1))


def test_a_restart_while_keys_are_exchanged_takes_new_ones(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        workers["w3"].mute = "Roster"
        place.begin(*workers.values())
        await place.until(lambda: bool(workers["w3"].said(Roster)))
        await place.stop()
        workers["w3"].mute = ""
        place.start()
        place.begin(*workers.values())
        await place.until(committed(place, 1))
        assert place.digests()[:2] == model_of(place, {1: "abcdef"})
        assert len({offer.round_id for offer in workers["w1"].said(Offer)}) == 2

    play(scene, Place(tmp_path, rounds=1))


def test_a_set_whose_keys_are_gone_after_shares_were_asked_for_waits_for_the_operator(tmp_path: Path) -> None:
    """No other set over the same base may be opened: the difference would be one participant."""

    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        for worker in workers.values():
            worker.dies_before = "Survivors"
        place.begin(*workers.values())
        await place.until(lambda: all(task.done() for task in place.tasks))
        for _ in range(2):
            place.begin(*workers.values())
            await place.until(lambda: place.now().machine.state.phase is Phase.HALTED)
            assert "No other set of updates may be opened" in place.now().reports.status(0.0).waiting_for
            assert [each.outcome for each in place.store.attempts()] == ["closed"]
            assert len({offer.round_id for offer in workers["w1"].said(Offer)}) == 1
            await place.now().driver.operate(lambda now: events.ResumeRequested(now=now))
            await place.stop()
            place.start()

    play(scene, Place(tmp_path, rounds=1))


def test_a_resumed_opening_takes_the_shares_of_those_that_are_back(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers({"w1": "ab", "w2": "cd", "w3": "e", "w4": "f"})
        for name in ("w2", "w3", "w4"):
            workers[name].mute = "Survivors"
        place.begin(*workers.values())
        await place.until(lambda: place.now().machine.state.phase is Phase.UNMASKING)
        await place.until(
            lambda: "revealing: waiting for w2, w3, w4" in place.now().reports.status(0.0).waiting_for
        )
        await place.stop()
        for worker in workers.values():
            worker.mute = ""
        place.start()
        place.begin(*workers.values())
        await place.until(committed(place, 1))
        assert place.digests()[:2] == model_of(place, {1: "abcdef"})
        assert len(place.store.attempts()) == 1

    play(scene, Place(tmp_path, rounds=1))


def test_a_client_revoked_before_its_worker_uploads_starts_the_round_anew_without_it(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        workers["w3"].mute = "ShareDelivery"
        place.begin(*workers.values())
        await place.until(lambda: bool(workers["w1"].verdicts) and bool(workers["w3"].said(ShareDelivery)))
        workers["w3"].mute = ""
        await place.now().ownership.revoke_client("f")
        await place.until(committed(place, 1))
        assert place.store.attempts()[0].accepted == tuple("abcde")
        assert place.digests()[:2] == model_of(place, {1: "abcde"})

    play(scene, Place(tmp_path, rounds=1))


def test_a_restart_with_another_registry_waits_for_the_right_one(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        die_at(place.store, "close_attempt", "after")
        place.begin(*workers.values())
        await place.crashed()
        right, place.registry = place.registry, registry_of({"w1": "ab", "w2": "cd", "w4": "ef"})[0]
        place.start()
        await place.until(lambda: place.now().machine.state.phase is Phase.HALTED)
        assert "does not fit the registry" in place.now().reports.status(0.0).waiting_for
        await place.now().driver.operate(lambda now: events.ResumeRequested(now=now))
        assert place.now().machine.state.phase is Phase.HALTED
        await place.stop()
        place.registry = right
        place.start()
        place.begin(*workers.values())
        await place.until(committed(place, 1))
        assert place.digests()[:2] == model_of(place, {1: "abcdef"})

    play(scene, Place(tmp_path, rounds=1, level="active"))


def test_shares_that_come_after_the_sum_is_open_are_nobodys_fault(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        place.begin(*workers.values())
        await place.until(committed(place, 2))
        await place.until(lambda: all(len(each.said(Opened)) == 2 for each in workers.values()))
        assert "messages_rejected_total{" not in place.now().given.metrics.render().decode()

    play(scene, Place(tmp_path))
