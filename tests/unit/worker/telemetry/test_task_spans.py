"""The session's steps as spans under what the coordinator's are called, and the data calls under them."""

from __future__ import annotations

import itertools

import pytest

from ssd.daemon.tracing.context import (
    SpanContext,
    attempt_context,
    client_context,
    parse_traceparent,
    phase_context,
)
from ssd.daemon.tracing.spans import Kind, Span
from ssd_wire.messages import BlobRef, ModelVersion, TaskClient, Train, UpdateKey
from ssd_wire.uploads import UploadFate, Verdict
from worker.core import effects, events
from worker.core.effects import Effect
from worker.core.events import Event
from worker.core.finished import Finished
from worker.errors import LinkBroken
from worker.telemetry.tracing import TaskTracing

ROOT = attempt_context("run", 1, 1)
TRAINING = phase_context(ROOT, "training")


def train(*clients: str) -> Train:
    return Train(
        round=1,
        attempt=1,
        base=ModelVersion(number=0, model_digest="0" * 64, full=BlobRef(digest="f" * 64, size=4)),
        task_digest="t",
        run_seed=1,
        rounds=3,
        values={},
        threads=1,
        clients=tuple(TaskClient(client=client) for client in clients),
    )


def finished(task: Train, client: str) -> Finished:
    return Finished(key=task.key(client), weight=7, seconds=1.0, body_size=8, chunk_digests=b"")


class Subject:
    """A tracing worker; every look at the clock takes a nanosecond."""

    def __init__(self, share: float = 1.0) -> None:
        self.out: list[Span] = []
        clock, ids = itertools.count(100), itertools.count(1)
        self.tracing = TaskTracing(share, self.out.append, lambda: next(clock), lambda: f"{next(ids):016x}")

    def tell(self, event: Event, *todo: Effect) -> list[Span]:
        before = len(self.out)
        self.tracing.stepped("run", event, todo)
        return self.out[before:]


def ended(fate: UploadFate, reason: str = "") -> events.UploadEnded:
    return events.UploadEnded(upload=1, verdict=Verdict(fate=fate, reason=reason))


def test_the_parents_are_those_of_the_coordinator() -> None:
    subject, task = Subject(), train("a", "b")
    subject.tell(task, effects.Prepare(train=task))
    (prepared,) = subject.tell(
        events.Prepared(key=task.key(""), number=0),
        effects.TrainClient(train=task, client=task.clients[0]),
    )
    assert (prepared.name, prepared.parent) == ("prepare", TRAINING)
    assert prepared.attributes == {"ssd.round": 1, "ssd.attempt": 1, "ssd.version": 0}
    (first,) = subject.tell(
        events.ClientTrained(finished=finished(task, "a")),
        effects.TrainClient(train=task, client=task.clients[1]),
    )
    assert (first.name, first.parent) == ("train", client_context(ROOT, "a"))
    assert "ssd.weight" not in first.attributes  # how many images a client has is nobody's business
    both = (finished(task, "a"), finished(task, "b"))
    (second,) = subject.tell(
        events.ClientTrained(finished=both[1]), effects.StartUpload(upload=1, train=task, updates=both)
    )
    assert second.parent == client_context(ROOT, "b")
    (upload,) = subject.tell(ended(UploadFate.ACCEPTED))
    assert (upload.name, upload.parent, upload.error) == ("upload", TRAINING, "")
    assert upload.links == (client_context(ROOT, "a"), client_context(ROOT, "b"))
    assert (upload.attributes["ssd.clients"], upload.attributes["ssd.outcome"]) == (2, "accepted")


def test_the_upload_of_one_client_is_part_of_its_task() -> None:
    subject, task = Subject(), train("a")
    only = (finished(task, "a"),)
    subject.tell(events.DialDue(), effects.StartUpload(upload=1, train=task, updates=only, secure_round=b"r"))
    (upload,) = subject.tell(ended(UploadFate.REJECTED, "not_finite"))
    assert (upload.parent, upload.links, upload.error) == (client_context(ROOT, "a"), (), "not_finite")
    assert upload.attributes["ssd.masked"] is True


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (effects.Prepare(train=train("a")), effects.StopPreparing()),
        (effects.StartUpload(upload=1, train=train("a"), updates=()), effects.StopUpload()),
    ],
)
def test_what_nobody_wants_any_more_says_so(begin: Effect, end: Effect) -> None:
    subject = Subject()
    subject.tell(events.DialDue(), begin)
    (span,) = subject.tell(events.DialDue(), end)
    assert span.error == "stopped"
    assert subject.tell(events.DialDue(), end) == []


def test_what_fails_says_why() -> None:
    subject, task = Subject(), train("a")
    subject.tell(task, effects.Prepare(train=task))
    failed = events.PrepareFailed(key=task.key(""), reason="model_unavailable", detail="a path", retry=False)
    assert [span.error for span in subject.tell(failed)] == ["model_unavailable"]
    subject.tell(task, effects.TrainClient(train=task, client=task.clients[0]))
    (span,) = subject.tell(events.ClientFailed(key=task.key("a"), reason="out_of_memory", detail="a path"))
    assert span.error == "out_of_memory"
    subject.tell(task, effects.StartUpload(upload=1, train=task, updates=(finished(task, "a"),)))
    assert [span.error for span in subject.tell(events.UploadBroken(upload=1))] == ["session_ended"]
    assert "a path" not in repr(subject.out)


def test_an_evaluation_that_is_ready_does_not_end_a_preparation() -> None:
    subject, task = Subject(), train("a")
    subject.tell(task, effects.Prepare(train=task))
    other = UpdateKey(client="", round=0, base_digest="0" * 64, task_digest="")
    assert subject.tell(events.Prepared(key=other, number=0)) == []
    assert subject.tracing.preparing is not None


def test_calls_hang_under_their_work_and_tell_the_coordinator_so() -> None:
    subject, task = Subject(), train("a")
    subject.tell(task, effects.Prepare(train=task))
    parent = subject.tracing.preparing
    assert parent is not None
    with subject.tracing.call("FetchBlob", parent) as call:
        call.say({"ssd.bytes": 5})
        ((key, value),) = call.metadata
    (span,) = subject.out
    assert (key, parse_traceparent(value)) == ("traceparent", span.context)
    assert (span.parent, span.kind, span.attributes["ssd.bytes"]) == (parent, Kind.CLIENT, 5)
    with pytest.raises(LinkBroken), subject.tracing.call("FetchBlob", parent):
        raise LinkBroken("unavailable", "an address")
    assert subject.out[-1].error == "unavailable"


def test_a_call_without_a_place_is_not_traced_and_tells_nothing() -> None:
    subject = Subject()
    with subject.tracing.call("FetchBlob", None) as call:
        assert call.metadata == ()
    assert subject.out == []
    assert (subject.tracing.preparing, subject.tracing.uploading) == (None, None)


def test_what_is_not_sampled_makes_no_span() -> None:
    subject, task = Subject(share=0.0), train("a")
    subject.tell(task, effects.Prepare(train=task), effects.TrainClient(train=task, client=task.clients[0]))
    assert subject.tracing.preparing is None
    subject.tell(events.ClientTrained(finished=finished(task, "a")))
    assert subject.out == []


def test_ids_are_never_used_twice() -> None:
    seen: set[SpanContext] = set()
    tracing = TaskTracing(1.0, lambda span: seen.add(span.context), lambda: 1)
    for _ in range(100):
        with tracing.call("FetchBlob", TRAINING):
            pass
    assert len(seen) == 100


def test_clients_that_are_trained_together_share_a_span_linked_to_their_tasks() -> None:
    subject, task = Subject(), train("a", "b", "c")
    subject.tell(task, effects.TrainTogether(train=task, clients=task.clients))
    assert not subject.tell(events.ClientFailed(key=task.key("c"), reason="training_failed", detail=""))
    both = tuple(finished(task, client) for client in "ab")
    assert not subject.tell(events.FoldWritten(key=task.key(""), finished=both, added=frozenset("ab")))
    (span,) = subject.tell(events.TogetherEnded(key=task.key("")))
    assert (span.name, span.parent, span.error) == ("train", TRAINING, "")
    assert span.links == tuple(client_context(ROOT, client) for client in "abc")
    assert span.attributes == {"ssd.round": 1, "ssd.attempt": 1, "ssd.clients": 3, "ssd.bytes": 8}


def test_the_death_of_the_training_process_is_in_the_span_of_all() -> None:
    subject, task = Subject(), train("a", "b")
    subject.tell(task, effects.TrainTogether(train=task, clients=task.clients))
    (span,) = subject.tell(events.TogetherEnded(key=task.key(""), died="killed by SIGKILL"))
    assert span.error == "training_process_died"
