"""Clients that belong to workers, workers that are revoked: across streams, restarts and attempts."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.errors import ClientFault, Reason
from coordinator.identity.revocations import Revocations
from coordinator.parts import Coordinator
from coordinator.ports.trust import Holder
from coordinator.store.journal.sqlite import SqliteJournal
from coordinator.store.trust import SqliteTrust
from coordinator.uploads.in_flight import Upload
from coordinator.workers.sessions import Session
from rounds.driver_harness import driver, settle, simulate
from ssd.trust.names import Role, Subject
from ssd.updates.fold import FoldPlan
from ssd_wire.messages import Capabilities, Hello
from ssd_wire.uploads import Envelope, UploadFate, UploadKind, WeightedClient

W = Holder(Role.WORKER, "w")
REVOKED = 1.0
"""Seconds within which a revoked worker's stream has ended."""


class _Checked(Upload):
    """An upload whose content is not looked at."""

    def check(self, plan: FoldPlan) -> None:
        pass


def hello(worker: str, *clients: str) -> Hello:
    return Hello(worker=worker, instance="0" * 32, clients=dict.fromkeys(clients, 0))


async def attach(
    subject: Coordinator, worker: str, *clients: str, role: Role | None = Role.WORKER, evaluates: bool = False
) -> Session:
    holder = None if role is None else Subject("hospital", role, worker)
    offered = Capabilities(evaluates=evaluates)
    return await subject.attendance.attach(replace(hello(worker, *clients), capabilities=offered), holder)


async def leave(subject: Coordinator, session: Session) -> None:
    subject.attendance.detach(session)
    await settle()


async def refused(doing: object, reason: Reason) -> ClientFault:
    with pytest.raises(ClientFault) as fault:
        await doing  # type: ignore[misc]  # a coroutine of any result
    assert fault.value.reason is reason
    return fault.value


def offered(subject: Coordinator, session: Session, client: str) -> Upload:
    attempt = subject.machine.state.attempt
    assert attempt is not None
    envelope = Envelope(
        run_id="run",
        round=attempt.round,
        attempt=attempt.number,
        base_digest="",
        spec_digest="",
        task_digest="",
        kind=UploadKind.UPDATE,
        clients=(WeightedClient(client=client, weight=1),),
        body_size=0,
        chunk_digests=(),
    )
    body = subject.given.staging.open(0)
    assert body is not None
    subject.round_sum._fold.add_update = lambda *_: None  # type: ignore[method-assign]
    return _Checked(envelope=envelope, worker=session.worker, body=body)


# ------------------------------------------------------------------------------------------------- belonging


def test_who_came_first_keeps_its_clients_across_streams_and_restarts(tmp_path: Path) -> None:
    store = SqliteJournal(tmp_path)

    async def first(subject: Coordinator) -> None:
        session = await attach(subject, "w", "a")
        await refused(attach(subject, "x", "a"), Reason.CLIENT_BOUND)
        await leave(subject, session)
        fault = await refused(attach(subject, "x", "b", "a"), Reason.CLIENT_BOUND)
        assert "clients move a --to x" in fault.detail
        # Nothing of the refused claim stays behind.
        assert store.bindings() == {"a": "w"}

    async def second(subject: Coordinator) -> None:
        assert subject.machine.state.bindings == {"a": "w"}
        with pytest.raises(ClientFault) as fault:
            await subject.attendance.attach(hello("x", "a"))
        assert fault.value.reason is Reason.CLIENT_BOUND

    simulate(first, lambda: driver(tmp_path, store, proven=True))
    simulate(second, lambda: driver(tmp_path, store, proven=True))


def test_a_change_of_clients_binds_and_is_refused_like_a_hello(tmp_path: Path) -> None:
    store = SqliteJournal(tmp_path)

    async def scene(subject: Coordinator) -> None:
        await attach(subject, "w", "a")
        other = await attach(subject, "x")
        await refused(subject.attendance.change_clients(other, {"a": 0}), Reason.CLIENT_BOUND)
        await subject.attendance.change_clients(other, {"b": 0})
        assert store.bindings() == {"a": "w", "b": "x"}

    simulate(scene, lambda: driver(tmp_path, store, proven=True))


def test_without_certificates_nobody_is_bound(tmp_path: Path) -> None:
    store = SqliteJournal(tmp_path)

    async def scene(subject: Coordinator) -> None:
        session = await attach(subject, "w", "a", role=None)
        await refused(attach(subject, "x", "a", role=None), Reason.CLIENT_CLAIMED)
        await leave(subject, session)
        await attach(subject, "x", "a", role=None)
        assert store.bindings() == {}
        await refused(subject.ownership.move_client("a", "w"), Reason.CONFLICT)

    simulate(scene, lambda: driver(tmp_path, store))


def test_a_client_moves_when_the_operator_says_so_and_nobody_hosts_it(tmp_path: Path) -> None:
    store = SqliteJournal(tmp_path)

    async def scene(subject: Coordinator) -> None:
        session = await attach(subject, "w", "a")
        await refused(subject.ownership.move_client("a", "x"), Reason.CONFLICT)
        await leave(subject, session)
        assert await subject.ownership.move_client("a", "x") == "w"
        await refused(attach(subject, "w", "a"), Reason.CLIENT_BOUND)
        await attach(subject, "x", "a")
        await refused(subject.ownership.move_client("nobody", "x"), Reason.NOT_FOUND)
        await refused(subject.ownership.move_client("b", "no name"), Reason.BAD_NAME)
        assert await subject.ownership.move_client("b", "x") == ""
        assert store.bindings() == {"a": "x", "b": "x"}

    simulate(scene, lambda: driver(tmp_path, store, proven=True))


def test_clients_can_be_given_to_a_worker_before_it_comes(tmp_path: Path) -> None:
    async def scene(subject: Coordinator) -> None:
        await subject.ownership.bind("w", ["a", "later"])
        await refused(attach(subject, "x", "a"), Reason.CLIENT_BOUND)
        await refused(subject.ownership.bind("x", ["b", "a"]), Reason.CLIENT_BOUND)
        await attach(subject, "x", "b")
        # Those that were named for it, and no others.
        await refused(attach(subject, "w", "a", "c"), Reason.CLIENT_BOUND)
        await attach(subject, "w", "a")

    simulate(scene, lambda: driver(tmp_path, proven=True))


def test_an_update_of_a_client_that_has_moved_away_is_refused(tmp_path: Path) -> None:
    async def scene(subject: Coordinator) -> None:
        old = await attach(subject, "w", "a", "b")
        upload = offered(subject, old, "a")
        await leave(subject, old)
        await subject.ownership.move_client("a", "x")
        verdict = await subject.verification.judge(old, upload)
        assert (verdict.fate, verdict.reason) == (UploadFate.REJECTED, Reason.CLIENT_NOT_HOSTED.value)

    simulate(scene, lambda: driver(tmp_path, proven=True))


def test_an_evaluator_has_no_clients(tmp_path: Path) -> None:
    async def scene(subject: Coordinator) -> None:
        await refused(attach(subject, "e", "a", role=Role.EVALUATOR), Reason.ROLE)
        session = await attach(subject, "e", role=Role.EVALUATOR)
        await refused(subject.attendance.change_clients(session, {"a": 0}), Reason.ROLE)

    simulate(scene, lambda: driver(tmp_path, proven=True))


def test_a_failure_reported_of_somebody_elses_client_counts_for_nothing(tmp_path: Path) -> None:
    async def scene(subject: Coordinator) -> None:
        await attach(subject, "w", "a", "b")
        stranger = await attach(subject, "x")
        for client in ("a", ""):
            await subject.attendance.client_failed(stranger, 1, 1, client, "lie")
        assert subject.machine.state.attempt is not None
        assert not subject.machine.state.attempt.failures

    simulate(scene, lambda: driver(tmp_path, proven=True))


# --------------------------------------------------------------------------------------------------- revoking


def test_a_revoked_worker_is_cut_off_and_stays_out_after_a_restart(tmp_path: Path) -> None:
    store, trust = SqliteJournal(tmp_path), SqliteTrust(tmp_path)

    async def first(subject: Coordinator) -> None:
        session = await attach(subject, "w", "a", "b")
        started = time.monotonic()
        assert await subject.ownership.revoke_identity(W)
        assert time.monotonic() - started < REVOKED
        assert session.closing is not None
        assert session.closing.reason is Reason.REVOKED
        with pytest.raises(ClientFault, match="void"):
            subject.sessions.by_token(session.token)
        await refused(attach(subject, "w", "a"), Reason.REVOKED)
        assert not await subject.ownership.revoke_identity(W)

    async def second(subject: Coordinator) -> None:
        assert subject.given.revocations.is_revoked(Subject("hospital", Role.WORKER, "w"))
        assert not subject.given.revocations.is_revoked(Subject("hospital", Role.OPERATOR, "w"))
        await refused(attach(subject, "w"), Reason.REVOKED)
        # Its clients are not revoked: they wait for another worker.
        await refused(attach(subject, "x", "a"), Reason.CLIENT_BOUND)
        await refused(subject.ownership.move_client("a", "w"), Reason.CONFLICT)
        await subject.ownership.move_client("a", "x")
        await attach(subject, "x", "a")

    simulate(first, lambda: driver(tmp_path, store, proven=True, trust=trust))
    simulate(second, lambda: driver(tmp_path, store, proven=True, trust=trust))


def test_a_revocation_another_process_wrote_cuts_off_too(tmp_path: Path) -> None:
    theirs = SqliteTrust(tmp_path)

    async def scene(subject: Coordinator) -> None:
        session = await attach(subject, "w", "a", "b")
        theirs.revoke(W, 1.0)
        assert isinstance(subject.given.revocations, Revocations)
        await subject.given.revocations.refresh()
        assert not session.open

    ours = SqliteTrust(tmp_path)
    simulate(scene, lambda: driver(tmp_path, proven=True, trust=ours))
    ours.close()
    theirs.close()


def test_without_certificates_no_name_can_be_revoked(tmp_path: Path) -> None:
    async def scene(subject: Coordinator) -> None:
        session = await attach(subject, "w", "a", role=None)
        fault = await refused(subject.ownership.revoke_identity(W), Reason.CONFLICT)
        assert "revoke the clients" in fault.detail
        assert session.open

    simulate(scene, lambda: driver(tmp_path))


def test_a_worker_is_cut_off_at_once_although_the_loop_is_busy(tmp_path: Path) -> None:
    async def scene(subject: Coordinator) -> None:
        session = await attach(subject, "w", "a", "b")
        busy = asyncio.Event()

        async def commit() -> None:
            await busy.wait()

        subject.mailbox.put(commit)
        revoking = asyncio.ensure_future(subject.ownership.revoke_identity(W))
        await asyncio.wait_for(session.closed.wait(), REVOKED)
        assert await revoking
        busy.set()

    simulate(scene, lambda: driver(tmp_path, proven=True))


def test_what_a_revoked_worker_has_contributed_stays_and_what_is_pending_is_refused(tmp_path: Path) -> None:
    async def scene(subject: Coordinator) -> None:
        session = await attach(subject, "w", "a", "b")
        first, second = offered(subject, session, "a"), offered(subject, session, "b")
        assert (await subject.verification.judge(session, first)).fate is UploadFate.ACCEPTED
        await subject.ownership.revoke_identity(W)
        verdict = await subject.verification.judge(session, second)
        assert (verdict.fate, verdict.reason) == (UploadFate.REJECTED, Reason.REVOKED.value)
        assert subject.machine.state.attempt is not None
        assert subject.machine.state.attempt.accepted == {"a"}
        assert subject.machine.state.attempt.wants("b")

    simulate(scene, lambda: driver(tmp_path, proven=True))


def test_revoking_an_evaluator_leaves_a_worker_of_the_same_name_alone(tmp_path: Path) -> None:
    async def scene(subject: Coordinator) -> None:
        session = await attach(subject, "w", "a")
        assert not await subject.ownership.revoke_identity(Holder(Role.EVALUATOR, "w"))
        assert session.open
        evaluator = await attach(subject, "e", role=Role.EVALUATOR, evaluates=True)
        assert await subject.ownership.revoke_identity(Holder(Role.EVALUATOR, "e"))
        assert not evaluator.open
        assert session.open

    simulate(scene, lambda: driver(tmp_path, proven=True))


def test_a_moved_clients_state_in_the_machine_is_what_the_journal_says(tmp_path: Path) -> None:
    store = SqliteJournal(tmp_path)

    async def scene(subject: Coordinator) -> None:
        session = await attach(subject, "w", "a", "b")
        await leave(subject, session)
        await subject.ownership.move_client("b", "x")
        assert subject.machine.state.bindings == store.bindings() == {"a": "w", "b": "x"}
        assert replace(subject.machine.state, bindings=None).belongs_to("b", "anybody")

    simulate(scene, lambda: driver(tmp_path, store, proven=True))
