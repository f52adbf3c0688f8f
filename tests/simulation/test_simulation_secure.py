"""Secure aggregation through the driver, in one process: whole rounds, dropouts in every phase, restarts at every step."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.core.state import Phase
from coordinator.driver import Driver
from coordinator.store.memory import MemoryStore
from coordinator.store.memory_blobs import MemoryBlobs
from driver_harness import driver
from masked_worker import MaskedWorker, expected_sum
from ssd.secagg.messages import AbortNotice, Offer, Opened
from ssd.trust.participants import Participant, Registry, introduce

CLIENTS = ("a", "b", "c", "d", "e", "f")
PATIENCE = 30.0
ELASTIC: dict[str, Any] = {
    "run": {"mode": "elastic"},
    "round": {"deadline_seconds": 1.0, "min_updates": 2},
    "secure_aggregation": {"phase_seconds": 0.3},
}


def registry_of(*names: str) -> tuple[Registry, dict[str, Ed25519PrivateKey]]:
    """A registry of these workers, and their keys."""
    signers = {
        name: Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()) for name in names
    }
    introduced = [introduce("federation", name, key) for name, key in sorted(signers.items())]
    participants = tuple(
        Participant(
            worker=each["worker"], key=each["key"], proof=each["proof"], clients=(), max_weight=1 << 20
        )
        for each in introduced
    )
    return Registry(federation="federation", version=1, issued_at=1, participants=participants), signers


class Place:
    """A coordinator that can be stopped and started again on the same state, and its workers."""

    def __init__(self, root: Path, *, rounds: int = 2, level: str = "passive", **changes: Any) -> None:
        self.root = root
        self.store, self.blobs = MemoryStore(), MemoryBlobs()
        self.changes: dict[str, dict[str, Any]] = {
            "run": {"rounds": rounds},
            "round": {"retry_seconds": 0.0},
            "secure_aggregation": {"level": level, "assumed_corrupt": 0.0, "tolerated_dropout": 0.34},
        }
        for table, values in changes.items():
            self.changes[table] = {**self.changes.get(table, {}), **values}
        self.registry, self.signers = registry_of("w1", "w2", "w3", "w4") if level == "active" else (None, {})
        self.subject: Driver | None = None
        self.loop: asyncio.Future[None] | None = None
        self.tasks: list[asyncio.Future[None]] = []

    def now(self) -> Driver:
        assert self.subject is not None
        return self.subject

    def start(self) -> Driver:
        self.subject = driver(
            self.root,
            self.store,
            clients=CLIENTS,
            changes=self.changes,
            blobs=self.blobs,
            participants=self.registry,
        )
        self.loop = asyncio.ensure_future(self.subject.run())
        return self.subject

    async def stop(self) -> None:
        self.now().stop()
        assert self.loop is not None
        await self.loop
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks = []

    def begin(self, *workers: MaskedWorker) -> None:
        self.tasks += [asyncio.ensure_future(worker.live()) for worker in workers]

    def workers(self, parts: Mapping[str, str]) -> dict[str, MaskedWorker]:
        return {
            name: MaskedWorker(
                self.now, name, tuple(own), registry=self.registry, signer=self.signers.get(name)
            )
            for name, own in parts.items()
        }

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not what():
                for task in self.tasks:
                    if task.done() and not task.cancelled() and task.exception() is not None:
                        raise AssertionError("a worker failed") from task.exception()
                assert self.loop is not None
                assert not self.loop.done() or self.now()._inbox.stopping
                await asyncio.sleep(0.005)

    def digests(self) -> list[str]:
        return [version.model_digest for version in self.store.versions()]


def play(scene: Callable[[Place], Awaitable[None]], place: Place) -> None:
    async def run() -> None:
        place.start()
        try:
            await scene(place)
        finally:
            await place.stop()

    asyncio.run(run())


THREE = {"w1": "ab", "w2": "cd", "w3": "ef"}


def committed(place: Place, version: int) -> Callable[[], bool]:
    return lambda: place.now().state.version >= version


def model_of(place: Place, accepted: Mapping[int, str]) -> list[str]:
    """The digests of a run whose rounds sum up these clients, computed without any protocol."""
    subject, versions = place.now(), place.store.versions()
    found = [versions[0].model_digest]
    for number, clients in sorted(accepted.items()):
        secure = subject._secure
        assert secure is not None
        total = expected_sum(secure.plan(subject.quality.plan(number)), tuple(clients), number)
        maker = subject._committer._maker
        before = versions[number - 1]
        made = maker.make(total.open(len(clients)), before.full, before.server_state, lambda write: write())
        found.append(made.model_digest)
    return found


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


@pytest.mark.parametrize("level", ["passive", "active"])
@pytest.mark.parametrize("phase", ["Survivors", "SetProof", "verdict"])
def test_one_that_is_gone_after_its_upload_stays_in_the_sum(tmp_path: Path, level: str, phase: str) -> None:
    if (level, phase) == ("passive", "SetProof"):
        pytest.skip("there is no proof of the survivor set at this level")

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
        assert place.now().state.version == 0
        await place.until(lambda: bool(workers["w1"].said(AbortNotice)))
        assert not workers["w1"].memory.bases

    play(scene, Place(tmp_path, rounds=1, **ELASTIC))


def test_a_single_worker_is_refused_and_the_status_says_why(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        place.begin(*place.workers({"w1": "abcdef"}).values())
        await place.until(lambda: place.now().state.phase is Phase.HALTED)
        assert "one participant alone would be laid open" in place.now().status().waiting_for

    play(scene, Place(tmp_path))
