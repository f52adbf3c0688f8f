"""The round machine's steps as spans, and whose word decides where a call's span hangs."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.core import effects, events
from coordinator.core.policy import Mode, RoundPolicy
from coordinator.core.round import step
from coordinator.core.state import RunState
from coordinator.errors import ClientFault, InternalFault, Reason
from coordinator.telemetry.round_spans import RoundSpans
from coordinator.telemetry.tracing import CALLS_PER_CLIENT, CALLS_PER_WORKER, RoundTracing
from ssd.daemon.tracing.context import (
    SpanContext,
    attempt_context,
    client_context,
    phase_context,
    traceparent,
)
from ssd.daemon.tracing.spans import Kind, Span

CLIENTS = ("a", "b", "c")
ONE = attempt_context("run", 1, 1)


class Machine:
    """The round machine with spans made of it; every step takes a nanosecond."""

    def __init__(self, share: float = 1.0, **changes: object) -> None:
        policy = RoundPolicy(mode=Mode.REPRODUCIBLE, rounds=2, cohort_size=3, seed=1, named_clients=CLIENTS)
        self.state = RunState(
            policy=replace(policy, **changes), clients=frozenset(CLIENTS), waiting_since=0.0
        )
        self.spans = RoundSpans("run", share)
        self.now = 100
        self.ended: list[Span] = []
        self.asked: dict[SpanContext, set[str]] = {}
        """Root of an attempt -> who got a task in it."""

    def tell(self, event: events.Event) -> list[Span]:
        before = self.state
        self.state, todo = step(before, event)
        self.now += 1
        found = self.spans.stepped(before, event, self.state, todo, self.now)
        self.ended += found
        for effect in todo:
            if isinstance(effect, effects.SendTrain):
                root = attempt_context("run", effect.round, effect.attempt)
                self.asked.setdefault(root, set()).update(effect.clients)
        return found

    def attach(self, worker: str, *clients: str) -> list[Span]:
        return self.tell(events.WorkerAttached(now=0.0, worker=worker, clients=clients))

    def upload(self, worker: str, *clients: str) -> list[Span]:
        attempt = self.state.attempt
        assert attempt is not None
        return self.tell(
            events.UploadVerified(
                now=1.0, upload=1, worker=worker, round=attempt.round, attempt=attempt.number, clients=clients
            )
        )

    def fail(self, worker: str, *clients: str, reason: str = "data_missing") -> list[Span]:
        attempt = self.state.attempt
        assert attempt is not None
        return self.tell(
            events.ClientFailed(
                now=1.0,
                worker=worker,
                round=attempt.round,
                attempt=attempt.number,
                clients=clients,
                reason=reason,
            )
        )

    def commit(self) -> list[Span]:
        return self.tell(events.VersionCommitted(now=2.0, version=self.state.version + 1))


def names(spans: list[Span]) -> list[str]:
    return [span.name for span in spans]


def test_a_round_is_its_phases_and_they_are_their_clients() -> None:
    machine = Machine()
    assert machine.attach("w", "a", "b") == []  # at 101
    assert machine.attach("v", "c") == []
    (done,) = machine.upload("v", "c")
    assert (done.name, done.context, done.parent) == (
        "client_task",
        client_context(ONE, "c"),
        phase_context(ONE, "training"),
    )
    assert (done.start, done.end) == (102, 103)
    assert done.attributes == {"ssd.client": "c", "ssd.worker": "v", "ssd.outcome": "accepted"}
    assert [(each.name, each.at) for each in done.events] == [("asked", 102)]
    closing = machine.upload("w", "a", "b")
    assert names(closing) == ["client_task", "client_task", "training"]
    assert (closing[-1].context, closing[-1].parent) == (phase_context(ONE, "training"), ONE)
    committing, root = machine.commit()
    assert (committing.name, committing.parent, committing.error) == ("committing", ONE, "")
    assert (root.name, root.context, root.parent) == ("round", ONE, None)
    assert (root.start, root.end) == (101, 105)
    assert root.attributes == {
        "ssd.run": "run",
        "ssd.round": 1,
        "ssd.attempt": 1,
        "ssd.mode": "reproducible",
        "ssd.cohort": 3,
        "ssd.accepted": 3,
        "ssd.outcome": "committed",
        "ssd.version": 1,
    }
    # The next round began in the same step, in a trace of its own.
    assert machine.spans.phase == phase_context(attempt_context("run", 2, 1), "training")


def test_a_client_that_failed_and_was_asked_again_is_one_task() -> None:
    machine = Machine(retry_seconds=5.0)
    machine.attach("w", *CLIENTS)
    assert machine.fail("w", "a") == []
    machine.tell(events.Tick(now=7.0))
    (done,) = machine.upload("w", "a")
    assert [each.name for each in done.events] == ["asked", "failed", "asked"]
    assert done.events[1].attributes == {"ssd.reason": "data_missing"}
    assert (done.attributes["ssd.outcome"], done.error) == ("accepted", "")


def test_an_abandoned_attempt_says_why_and_how_every_client_ended() -> None:
    machine = Machine(mode=Mode.ELASTIC, min_updates=3, deadline_seconds=10.0)
    machine.attach("w", *CLIENTS)
    machine.fail("w", "a")
    machine.upload("w", "b")
    ended = machine.tell(events.Tick(now=50.0))
    assert names(ended) == ["client_task", "client_task", "training", "round"]
    tasks = {span.attributes["ssd.client"]: span for span in ended[:2]}
    assert (tasks["a"].attributes["ssd.outcome"], tasks["a"].error) == ("failed", "data_missing")
    assert (tasks["c"].attributes["ssd.outcome"], tasks["c"].error) == ("unfinished", "")
    root = ended[-1]
    assert (root.attributes["ssd.outcome"], root.attributes["ssd.accepted"]) == ("abandoned", 1)
    assert root.error == "deadline with 1 of 3 updates"


def test_a_halt_ends_no_client_task() -> None:
    machine = Machine(max_client_failures=1)
    machine.attach("w", *CLIENTS)
    (training,) = machine.fail("w", "a")
    assert training.name == "training"
    (halted,) = machine.tell(events.ResumeRequested(now=3.0))
    assert (halted.name, halted.parent) == ("halted", ONE)
    ended = machine.upload("w", *CLIENTS)
    assert names(ended) == ["client_task"] * 3 + ["training"]
    assert ended[-1].context == phase_context(ONE, "training", 1)


def test_workers_write_into_the_spans_of_their_own_clients_only() -> None:
    machine = Machine()
    machine.attach("w", "a", "b")
    machine.attach("v", "c")
    machine.fail("v", "a", reason="lie")
    machine.fail("w", reason="everybody")
    machine.tell(events.WorkerDetached(now=1.0, worker="v"))
    machine.tell(events.ClientRevoked(now=1.0, client="c"))
    machine.spans.stepped(
        machine.state,
        events.ClientFailed(
            now=1.0, worker="w", round=9, attempt=9, clients=("a",), reason="of another round"
        ),
        machine.state,
        (),
        500,
    )
    (revoked,) = machine.ended
    assert [each.name for each in revoked.events] == ["asked", "worker_detached"]
    assert revoked.attributes["ssd.outcome"] == "revoked"
    ended = machine.upload("w", "a", "b")
    assert [[each.name for each in span.events] for span in ended[:2]] == [["asked", "failed"]] * 2
    assert {each.attributes.get("ssd.reason") for span in ended[:2] for each in span.events} == {
        None,
        "everybody",
    }


def test_a_refused_upload_is_noted_and_ends_nothing() -> None:
    machine = Machine()
    machine.attach("w", *CLIENTS)
    machine.upload("w", "a")
    assert machine.upload("w", "a", "b") == []
    (done,) = machine.upload("w", "b")
    assert [(each.name, each.attributes) for each in done.events][1:] == [
        ("discarded", {"ssd.reason": "duplicate"})
    ]


def test_a_restarted_coordinator_goes_on_with_the_same_trace() -> None:
    machine = Machine()
    machine.attach("w", *CLIENTS)
    again = Machine()
    again.state = replace(machine.state, hosts={})
    again.spans.resumed(again.state, 55, 99)
    again.attach("w", *CLIENTS)
    ended = again.upload("w", *CLIENTS) + again.commit()
    assert ended[0].parent == phase_context(ONE, "training")
    root = ended[-1]
    assert (root.context, root.start) == (ONE, 55)
    assert [(each.name, each.at) for each in root.events] == [("coordinator_restarted", 99)]


def test_phases_of_secure_aggregation_lie_beside_those_of_the_machine() -> None:
    machine = Machine()
    machine.attach("w", *CLIENTS)
    assert machine.spans.secure_phase(1, 1, "offered", 200) == []
    (offered,) = machine.spans.secure_phase(1, 1, "uploading", 210)
    assert (offered.name, offered.parent, offered.start, offered.end) == ("secure.offered", ONE, 200, 210)
    assert machine.spans.secure_phase(1, 2, "offered", 220) == []
    # The sum is open before anything is committed.
    assert names(machine.upload("w", *CLIENTS)) == ["client_task"] * 3 + ["secure.uploading", "training"]
    assert names(machine.commit()) == ["committing", "round"]


def test_what_is_not_sampled_makes_no_span() -> None:
    machine = Machine(share=0.0)
    machine.attach("w", *CLIENTS)
    machine.upload("w", *CLIENTS)
    machine.commit()
    assert machine.ended == []
    assert machine.spans.phase is None
    assert machine.spans.training(1, 1) is None
    assert machine.spans.caller(traceparent(ONE)) is None


workers = st.sampled_from(["v", "w"])
some_clients = st.lists(st.sampled_from(CLIENTS), min_size=1, max_size=3, unique=True).map(tuple)
operations = st.one_of(
    st.tuples(st.just("attach"), workers, some_clients),
    st.tuples(st.just("upload"), workers, some_clients),
    st.tuples(st.just("fail"), workers, st.one_of(st.just(()), some_clients)),
    st.tuples(st.just("detach"), workers, st.just(())),
    st.tuples(st.just("revoke"), workers, some_clients),
    st.tuples(st.sampled_from(["all", "commit", "resume", "tick"]), workers, st.just(())),
    st.tuples(
        st.sampled_from(["commit failed", "pause", "drain", "fixed", "opened", "abort", "stuck"]),
        workers,
        st.just(()),
    ),
)


def told(machine: Machine, kind: str, worker: str, clients: tuple[str, ...]) -> None:
    """Let something happen, if it can."""
    attempt, now = machine.state.attempt, float(machine.now)
    if kind == "all":
        # Both workers bring what is wanted of them.
        for each in ("v", "w"):
            hosted = (client for client, host in machine.state.hosts.items() if host == each)
            wanted = tuple(client for client in hosted if attempt is not None and attempt.wants(client))
            if wanted:
                told(machine, "upload", each, wanted)
        return
    number = {"round": attempt.round if attempt else 1, "attempt": attempt.number if attempt else 1}
    happened: dict[str, events.Event] = {
        "attach": events.WorkerAttached(now=now, worker=worker, clients=clients),
        "detach": events.WorkerDetached(now=now, worker=worker),
        "upload": events.UploadVerified(now=now, upload=1, worker=worker, clients=clients, **number),
        "fail": events.ClientFailed(now=now, worker=worker, clients=clients, reason="x", **number),
        "revoke": events.ClientRevoked(now=now, client=clients[0] if clients else "a"),
        "tick": events.Tick(now=now + 30.0),
        "commit": events.VersionCommitted(now=now, version=machine.state.version + 1),
        "commit failed": events.CommitFailed(now=now, reason="x"),
        "pause": events.PauseRequested(now=now),
        "resume": events.ResumeRequested(now=now),
        "drain": events.DrainRequested(now=now),
        "fixed": events.SharersFixed(now=now, clients=CLIENTS[:2], fewest_uploads=1, **number),
        "opened": events.SumOpened(now=now, **number),
        "abort": events.SumAborted(now=now, reason="x", **number),
        "stuck": events.UnmaskingStuck(now=now, reason="x", **number),
    }
    with contextlib.suppress(InternalFault):  # (it cannot happen now, and changes nothing)
        machine.tell(happened[kind])


@given(st.lists(operations, min_size=10, max_size=40), st.sampled_from(list(Mode)), st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_history_makes_a_tree_that_does_not_hang_together(
    history: list[tuple[str, str, tuple[str, ...]]], mode: Mode, secure: bool
) -> None:
    machine = Machine(
        mode=mode,
        min_participants=1 if secure else 0,
        max_client_failures=1,
        deadline_seconds=20.0,
        retry_seconds=1.0,
        rounds=9,
    )
    machine.attach("v", *CLIENTS)
    for each in history:
        told(machine, *each)
    by_trace: dict[str, list[Span]] = {}
    for span in machine.ended:
        by_trace.setdefault(span.context.trace_id, []).append(span)
    for spans in by_trace.values():
        ids = [span.context for span in spans]
        assert len(set(ids)) == len(ids), "an id was used twice"
        roots = [span for span in spans if span.parent is None]
        if not roots:
            continue  # (its attempt is under way)
        (root,) = roots
        assert root is spans[-1], "something ended after the whole"
        assert all(span.parent in ids for span in spans[:-1]), "a parent is missing"
        assert all(root.start <= span.start <= span.end <= root.end for span in spans)
        tasks = [span.attributes["ssd.client"] for span in spans if span.name == "client_task"]
        assert sorted(set(tasks)) == sorted(machine.asked[root.context]), "somebody who was asked is missing"
        assert root.attributes["ssd.outcome"] in ("committed", "abandoned")
        assert bool(root.error) == (root.attributes["ssd.outcome"] == "abandoned")
    present = machine.state.attempt
    assert (machine.spans.phase is None) == (present is None)
    if present is not None:
        root = attempt_context("run", present.round, present.number)
        assert machine.spans.phase is not None
        assert machine.spans.phase.trace_id == root.trace_id


# ------------------------------------------------------------------------------------------------------ calls


def tracing(machine: Machine) -> tuple[RoundTracing, list[Span]]:
    out: list[Span] = []
    ids = iter(range(1, 1_000_000))
    return RoundTracing(machine.spans, out.append, lambda: 1.0, lambda: f"{next(ids):016x}"), out


@pytest.fixture
def machine() -> Machine:
    machine = Machine()
    machine.attach("w", *CLIENTS)
    return machine


def test_a_call_hangs_under_the_span_that_its_caller_names(machine: Machine) -> None:
    subject, out = tracing(machine)
    caller = SpanContext(ONE.trace_id, "ab" * 8)
    with subject.call("FetchBlob", "w", 3, (("traceparent", traceparent(caller)),)) as call:
        call.say({"ssd.bytes": 12})
    (span,) = out
    assert (span.parent, span.kind, span.context.trace_id) == (caller, Kind.SERVER, ONE.trace_id)
    assert span.name == "ssd_proto.v1.Federation/FetchBlob"
    assert (span.attributes["ssd.bytes"], span.attributes["ssd.worker"]) == (12, "w")


def test_an_upload_of_a_worker_without_tracing_hangs_under_the_phase(machine: Machine) -> None:
    subject, out = tracing(machine)
    with subject.call("SubmitUpdate", "w", 3, ()) as call:
        call.belongs_to(1, 1)
    with subject.call("SubmitUpdate", "w", 3, ()) as call:
        call.belongs_to(1, 7)
    with subject.call("FetchBlob", "w", 3, ()):
        pass
    assert [span.parent for span in out] == [phase_context(ONE, "training")]


@pytest.mark.parametrize(
    "metadata",
    [
        (("traceparent", traceparent(attempt_context("another run", 1, 1))),),
        (("traceparent", traceparent(attempt_context("run", 2, 1))),),
        (("traceparent", traceparent(ONE)), ("traceparent", traceparent(ONE))),
        (("traceparent", "00-" + "x" * 5000),),
        (("traceparent-bin", traceparent(ONE).encode()),),
        (("Traceparent", traceparent(ONE)),),
    ],
    ids=["foreign", "of the future", "twice", "garbage", "binary", "another key"],
)
def test_nobody_writes_into_a_trace_that_is_not_recorded_here(
    machine: Machine, metadata: tuple[tuple[str, str | bytes], ...]
) -> None:
    subject, out = tracing(machine)
    with subject.call("FetchBlob", "w", 3, metadata):
        pass
    assert out == []


def test_one_worker_cannot_fill_the_trace(machine: Machine) -> None:
    subject, out = tracing(machine)
    told = (("traceparent", traceparent(ONE)),)
    for _ in range(1000):
        with subject.call("FetchBlob", "w", 3, told):
            pass
    most = CALLS_PER_WORKER + 3 * CALLS_PER_CLIENT
    assert len(out) == most
    with subject.call("FetchBlob", "v", 1, told):
        pass
    assert len(out) == most + 1
    # Late calls of the attempt before do not give it new room.
    machine.upload("w", *CLIENTS)
    machine.commit()
    two = (("traceparent", traceparent(attempt_context("run", 2, 1))),)
    for _ in range(1000):
        for metadata in (told, two):
            with subject.call("FetchBlob", "w", 3, metadata):
                pass
    assert len(out) == 2 * most + 1


def test_a_call_that_is_refused_says_why(machine: Machine) -> None:
    subject, out = tracing(machine)
    told = (("traceparent", traceparent(ONE)),)
    with pytest.raises(ClientFault), subject.call("FetchBlob", "w", 3, told):
        raise ClientFault(Reason.UNKNOWN_BLOB, "a digest")
    with subject.call("SubmitUpdate", "w", 3, told) as call:
        call.failed("too_late")
        call.failed("AbortError")
    assert [span.error for span in out] == ["unknown_blob", "too_late"]


def test_parts_hang_under_the_phase_they_began_in(machine: Machine) -> None:
    subject, out = tracing(machine)
    machine.upload("w", *CLIENTS)
    with subject.part("open_sum"):
        pass
    with pytest.raises(RuntimeError), subject.part("make_version"):
        raise RuntimeError
    assert [(span.name, span.parent, span.error) for span in out] == [
        ("open_sum", phase_context(ONE, "committing"), ""),
        ("make_version", phase_context(ONE, "committing"), "RuntimeError"),
    ]
