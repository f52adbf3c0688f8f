"""Masked uploads and messages of workers that do not keep to the protocol: refused, counted, and nothing is spoilt."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from coordinator.core import events
from coordinator.core.state import Phase
from coordinator.errors import ClientFault, Reason
from coordinator.parts import Coordinator
from coordinator.uploads.in_flight import Upload
from coordinator.workers.sessions import Session
from rounds.driver_harness import driver, messages, settle, simulate
from secure.masked_place import ELASTIC, THREE, Crash, Place, committed, model_of, play, registry_of
from secure.masked_worker import Gone, MaskedWorker
from ssd.digest import chunk_digests
from ssd.secagg.client.participant import Participant
from ssd.secagg.protocol.messages import Offer, Roster, ShareDelivery
from ssd.secagg.server.opening import Rebuilding
from ssd_wire.messages import Hello, Train
from ssd_wire.uploads import Envelope, UploadFate, UploadKind, WeightedClient


def weighted(names: Iterable[str], weight: int = 0) -> tuple[WeightedClient, ...]:
    return tuple(WeightedClient(client=name, weight=weight) for name in names)


class Hostile(MaskedWorker):
    """Before it uploads what it should, it tries something else."""

    changes: dict[str, Any]
    cut = 0

    async def upload(self, **_: object) -> None:
        body = self.body()
        short = body[: len(body) - self.cut]
        await self.send(self.envelope(short, **self.changes), short)
        await super().upload()


@pytest.mark.parametrize(
    ("changes", "cut", "reason"),
    [
        ({"secure_round": bytes(16)}, 0, Reason.STALE_ATTEMPT),
        ({"sharers_digest": bytes(32)}, 0, Reason.WRONG_SHARERS),
        ({}, 1, Reason.WRONG_LENGTH),
        ({"clients": weighted("c")}, 0, Reason.MALFORMED_MESSAGE),
        ({"clients": weighted("acd")}, 0, Reason.CLIENT_NOT_HOSTED),
        ({"kind": UploadKind.FOLD}, 0, Reason.SECURE_AGGREGATION_REQUIRED),
        (
            {"kind": UploadKind.UPDATE, "clients": weighted("c", 1)},
            0,
            Reason.SECURE_AGGREGATION_REQUIRED,
        ),
        ({"base_digest": "0" * 64}, 0, Reason.WRONG_BASE),
        ({"attempt": 9}, 0, Reason.STALE_ATTEMPT),
        ({"chunk_digests": (bytes(32),)}, 0, Reason.CORRUPT_CHUNK),
    ],
)
def test_a_bad_masked_upload_is_refused_and_spoils_nothing(
    tmp_path: Path, changes: dict[str, Any], cut: int, reason: Reason
) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        hostile = workers["w2"] = Hostile(place.now, "w2", ("c", "d"))
        hostile.changes, hostile.cut = changes, cut
        place.begin(*workers.values())
        await place.until(committed(place, 1))
        assert [fault.reason for fault in hostile.refusals] == [reason]
        assert place.digests()[:2] == model_of(place, {1: "abcdef"})

    play(scene, Place(tmp_path, rounds=1))


def test_a_masked_upload_of_nobody_is_refused(tmp_path: Path) -> None:
    """Elastic rounds take a part of a worker's clients, but not none of them."""

    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        hostile = workers["w2"] = Hostile(place.now, "w2", ("c", "d"))
        hostile.changes = {"clients": ()}
        place.begin(*workers.values())
        await place.until(lambda: bool(hostile.refusals))
        assert hostile.refusals[0].reason is Reason.MALFORMED_MESSAGE

    play(scene, Place(tmp_path, rounds=1, **ELASTIC))


def test_only_participants_upload_and_only_what_was_theirs_when_the_try_began(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        workers["w3"].mute = "ShareDelivery"
        place.begin(*workers.values())
        await place.until(lambda: bool(workers["w3"].said(ShareDelivery)))
        secure, own = place.now().round_sum, workers["w1"].session
        assert secure is not None
        assert own is not None
        machine = secure._present.machine  # type: ignore[union-attr]

        def refused(session: Session, *clients: str) -> Reason:
            said = Envelope(
                run_id="", round=1, attempt=1, base_digest="", spec_digest="", task_digest="",
                kind=UploadKind.MASKED, clients=weighted(clients),
                body_size=0, chunk_digests=(), secure_round=workers["w1"].round_id,
                sharers_digest=machine.sharers_digest,
            )  # fmt: skip
            with pytest.raises(ClientFault) as caught:
                secure.check(session, said)
            return caught.value.reason

        # Moved to this worker since, and a worker that came later.
        assert refused(own, "a", "e") is Reason.CLIENT_NOT_INVITED
        stranger = await MaskedWorker(place.now, "w9", ()).attend()
        assert refused(stranger, "a") is Reason.NOT_A_PARTICIPANT

    play(
        scene,
        Place(tmp_path, rounds=1, **(ELASTIC | {"round": {"deadline_seconds": 30.0, "min_updates": 2}})),
    )


def test_a_masked_upload_is_refused_where_sums_are_not_masked(tmp_path: Path) -> None:
    async def scene(subject: Coordinator) -> None:
        hello = Hello(worker="w", instance="0" * 32, clients={"a": 0, "b": 0}, run_id="run")
        session = await subject.attendance.attach(hello)
        await settle()
        (train,) = messages(session, Train)
        envelope = Envelope(
            run_id="run",
            round=train.round,
            attempt=train.attempt,
            base_digest=train.base.model_digest,
            spec_digest=subject.reports.facts.declaration.spec.digest,
            task_digest=train.task_digest,
            kind=UploadKind.MASKED,
            clients=weighted("ab"),
            body_size=3,
            chunk_digests=chunk_digests(b"abc"),
        )
        with pytest.raises(ClientFault) as caught:
            subject.uploads.let_in(session, envelope)
        assert caught.value.reason is Reason.MALFORMED_MESSAGE

    simulate(scene, driver(tmp_path))


def test_a_second_upload_of_a_worker_is_discarded(tmp_path: Path) -> None:
    class Twice(MaskedWorker):
        async def upload(self, **_: object) -> None:
            await super().upload()
            await self.send(self.envelope(self.made), self.made)

        def body(self) -> bytes:
            self.made = super().body()
            return self.made

    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        twice = workers["w1"] = Twice(place.now, "w1", ("a", "b"))
        workers["w3"].mute = "ShareDelivery"
        place.begin(*workers.values())
        await place.until(lambda: len(twice.refusals) == 1)
        assert twice.refusals[0].reason is Reason.DUPLICATE
        assert [verdict.fate for verdict in twice.verdicts] == [UploadFate.ACCEPTED]

    play(scene, Place(tmp_path, rounds=1))


def test_messages_of_others_of_other_rounds_and_said_twice_change_nothing(tmp_path: Path) -> None:
    class Rude(MaskedWorker):
        async def say(self, round_id: bytes, content: bytes) -> None:
            await super().say(bytes(16), content)
            for told in self.heard_raw:
                await super().say(round_id, told)
            for _ in range(3):
                await super().say(round_id, content)

    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        workers["w2"] = Rude(place.now, "w2", ("c", "d"))
        place.begin(*workers.values())
        await place.until(committed(place, 1))
        assert place.digests()[:2] == model_of(place, {1: "abcdef"})
        assert (
            'secure_aggregation_messages_rejected_total{reason="unexpected_message"}'
            in place.now().given.metrics.render().decode()
        )

    play(scene, Place(tmp_path, rounds=1))


def test_a_worker_cannot_speak_for_another(tmp_path: Path) -> None:
    class Honest(MaskedWorker):
        first = b""

        async def say(self, round_id: bytes, content: bytes) -> None:
            self.first = self.first or content
            await super().say(round_id, content)

    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        honest = workers["w1"] = Honest(place.now, "w1", ("a", "b"))
        workers["w2"].mute = "Offer"
        place.begin(*workers.values())
        await place.until(lambda: bool(honest.first) and bool(workers["w2"].said(Offer)))
        impostor = workers["w2"]
        await impostor.say(impostor.round_id or impostor.said(Offer)[0].round_id, honest.first)
        # Who names another broke the protocol and is out; a reproducible round cannot do without it.
        await place.until(lambda: any(each.outcome == "abandoned" for each in place.store.attempts()))
        assert "broke the protocol" in place.store.attempts()[-1].reason

    play(scene, Place(tmp_path, rounds=1))


def test_what_is_no_message_ends_the_stream(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        workers["w3"].mute = "Offer"
        place.begin(*workers.values())
        await place.until(lambda: bool(workers["w3"].said(Offer)))
        session, (offer,) = workers["w3"].session, workers["w3"].said(Offer)
        assert session is not None
        with pytest.raises(ClientFault) as caught:
            await place.now().attendance.secure_message(session, offer.round_id, b"\x01\x02garbage")
        assert caught.value.reason is Reason.MALFORMED_MESSAGE

    play(scene, Place(tmp_path, rounds=1))


@pytest.mark.parametrize(
    ("entry", "max_weight", "reason", "says"),
    [
        ("c", 1 << 20, Reason.CLIENT_NOT_HOSTED, "does not list client d for worker w2"),
        ("cd", 2 * 1024 - 1, Reason.WEIGHT_OUT_OF_RANGE, "may weigh 2048 together"),
    ],
)
def test_a_worker_cannot_fold_what_its_entry_in_the_registry_does_not_allow(
    tmp_path: Path, entry: str, max_weight: int, reason: Reason, says: str
) -> None:
    """It should have refused itself: this one does not."""

    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        place.registry = registry_of({**THREE, "w2": entry}, max_weight)[0]
        workers = {name: workers[name] for name in ("w1", "w2", "w3")}
        place.begin(*workers.values())
        await place.until(lambda: bool(workers["w2"].refusals))
        assert workers["w2"].refusals[0].reason is reason
        assert says in workers["w2"].refusals[0].detail
        assert place.now().machine.state.version == 0

    play(scene, Place(tmp_path, rounds=1, level="active"))


CHUNK = 128
CUTS = {
    "before a byte": 0,
    "inside the first chunk": CHUNK // 2,
    "after the first chunk": CHUNK,
    "one byte on": CHUNK + 1,
    "after the second chunk": 2 * CHUNK,
    "one byte before the end": -1,
}


class BreaksOff(MaskedWorker):
    """Its upload breaks off after so many bytes; then its process ends, or it goes on in a new call."""

    cut = 0
    comes_back = False
    resumed_at = -1

    async def upload(self, **_: object) -> None:
        body = self.body()
        envelope, cut = self.envelope(body), self.cut % len(body)
        assert len(envelope.chunk_digests) == 3
        await self.part(envelope, body[:cut])
        if not self.comes_back:
            raise Gone
        taken = await self.part(envelope, body)
        assert taken.complete
        # (A part lets go of what it claimed, as a call that breaks off does.)
        claimed = self.driver.in_flight.claim(self.session.worker, envelope)
        assert claimed is taken
        self.verdicts.append(await self.driver.verification.judge(self.session, taken))
        assert self.participant is not None
        self.participant.uploaded()

    async def part(self, envelope: Envelope, body: bytes) -> Upload:
        """One call, up to the end of these bytes."""
        assert self.session is not None
        self.driver.uploads.let_in(self.session, envelope)
        taken = self.driver.in_flight.claim(self.session.worker, envelope)
        assert taken is not None
        self.resumed_at = taken.body.received
        while taken.body.received < len(body):
            start = taken.body.received
            taken.take(start, body[start : start - start % CHUNK + CHUNK])
        self.driver.in_flight.release(taken)
        return taken


@pytest.mark.parametrize("comes_back", [False, True])
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_an_upload_of_three_chunks_that_breaks_off_is_wholly_in_the_sum_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int, comes_back: bool
) -> None:
    for module in (
        "ssd.digest",
        "coordinator.uploads.in_flight",
        "coordinator.uploads.envelope_checks",
        "secure.masked_worker",
    ):
        monkeypatch.setattr(f"{module}.CHUNK_BYTES", CHUNK)

    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        broken = workers["w2"] = BreaksOff(place.now, "w2", ("c", "d"))
        broken.cut, broken.comes_back = cut, comes_back
        place.begin(*workers.values())
        await place.until(committed(place, 1))
        accepted = "abcdef" if comes_back else "abef"
        assert place.store.attempts()[0].accepted == tuple(accepted)
        assert place.digests()[:2] == model_of(place, {1: accepted})
        if comes_back:
            assert broken.resumed_at % broken_size(place) == cut % broken_size(place)

    def broken_size(place: Place) -> int:
        return place.now().max_upload_bytes

    play(scene, Place(tmp_path, rounds=1, **({} if comes_back else ELASTIC)))


class SharesAnother(MaskedWorker):
    """It shares another secret than it committed to: no choice of shares will ever fit."""

    def _answer(self, participant: Participant, said: object):
        if isinstance(said, Roster):
            assert participant._own is not None
            participant._own._self_secret = b"\x02" * 32
        return super()._answer(participant, said)


def test_a_secret_that_does_not_fit_its_commitment_halts_the_run_and_names_its_owner(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        workers["w2"] = SharesAnother(place.now, "w2", ("c", "d"))
        place.begin(*workers.values())
        await place.until(lambda: place.now().machine.state.phase is Phase.HALTED)
        told = place.now().reports.status(0.0).waiting_for
        assert "fits what was advertised by w2" in told
        assert "No other set of updates may be opened" in told
        assert (
            'aggregation_aborts_total{reason="unverifiable_secret"} 1'
            in place.now().given.metrics.render().decode()
        )

    play(scene, Place(tmp_path, rounds=1))


def test_the_loop_goes_on_while_secrets_are_searched_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A liar can make the search long: meanwhile others attend, and what they say is heard."""
    begun, go_on = threading.Event(), threading.Event()
    search = Rebuilding.step

    def slow(self: Rebuilding) -> bool:
        begun.set()
        assert go_on.wait(30)
        return search(self)

    monkeypatch.setattr(Rebuilding, "step", slow)

    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        place.begin(*workers.values())
        try:
            await place.until(begun.is_set)
            paused = place.now().driver.operate(lambda now: events.PauseRequested(now=now))
            await asyncio.wait_for(paused, 10)
            late = MaskedWorker(place.now, "w9", ())
            await asyncio.wait_for(late.attend(), 10)
            assert place.now().machine.state.phase is Phase.UNMASKING
        finally:
            go_on.set()
        await place.until(committed(place, 1))
        assert place.digests()[:2] == model_of(place, {1: "abcdef"})

    play(scene, Place(tmp_path, rounds=1))


def test_a_search_that_fails_by_a_defect_ends_the_loop_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Rebuilding) -> bool:
        raise Crash("a defect")

    monkeypatch.setattr(Rebuilding, "step", broken)

    async def scene(place: Place) -> None:
        place.begin(*place.workers(THREE).values())
        await place.crashed()
        monkeypatch.undo()
        place.start()
        place.begin(*place.workers(THREE).values())

    play(scene, Place(tmp_path, rounds=1))
