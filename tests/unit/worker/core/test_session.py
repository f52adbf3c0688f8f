"""The session machine: single decisions, and properties over random histories."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ssd_wire import messages
from ssd_wire.messages import Artefact, BlobRef, HeldFate, ModelVersion, TaskClient, Train
from ssd_wire.uploads import UploadFate, Verdict
from worker.core import effects, events
from worker.core.effects import Effect
from worker.core.finished import Finished
from worker.core.session import step
from worker.core.state import Link, Session
from worker.errors import CoordinatorFault

RUN = "run-1"


def version(number: int) -> ModelVersion:
    return ModelVersion(number=number, model_digest=f"{number:064x}", full=BlobRef(digest="f" * 64, size=4))


def welcome(number: int = 0, fates: tuple[HeldFate, ...] = (), **changes: object) -> events.Welcomed:
    fields = {
        "protocol": 1,
        "session": "s",
        "run_id": RUN,
        "declaration": BlobRef(digest="d" * 64, size=1),
        "declaration_digest": "d" * 64,
        "held_fates": fates,
        "reinitialise": {},
        "data_endpoints": (),
        "heartbeat_seconds": 5.0,
        "update_encoding": "float16",
        "delta_encoding": "float16",
        "max_cohort": 10,
        "max_client_weight": 10,
        "max_upload_bytes": 100,
        "version": version(number),
    }
    return events.Welcomed(welcome=messages.Welcome(**(fields | changes)))  # type: ignore[arg-type]


def train(clients: str, number: int = 0, attempt: int = 1, task: str = "t", within: float = 0.0) -> Train:
    said = Train(
        round=number + 1,
        attempt=attempt,
        base=version(number),
        task_digest="",
        run_seed=1,
        rounds=10,
        values={task: 1.0},
        threads=1,
        clients=tuple(TaskClient(client=client) for client in clients),
        upload_within_seconds=within,
    )
    return replace(said, task_digest=said.computed_digest(RUN, "d" * 64))


def finished(task: Train, client: str) -> Finished:
    return Finished(key=task.key(client), weight=1, seconds=1.0, body_size=8, chunk_digests=b"")


class Machine:
    """A session and everything it asked for."""

    def __init__(self, clients: str = "abc") -> None:
        self.session = Session(clients=dict.fromkeys(clients, 0), run_id=RUN)
        self.out: list[Effect] = []

    def tell(self, *news: events.Event) -> list[Effect]:
        self.out = []
        for event in news:
            self.session, out = step(self.session, event)
            self.out.extend(out)
        return self.out

    def attend(self, number: int = 0, fates: tuple[HeldFate, ...] = (), **changes: object) -> list[Effect]:
        return self.tell(events.DialDue(), welcome(number, fates, **changes))

    def asked(self, kind: type) -> list[Effect]:
        return [effect for effect in self.out if type(effect) is kind]

    def ready(self, task: Train) -> list[Effect]:
        return self.tell(task, events.Prepared(key=task.key(""), number=task.base.number))

    def upload_number(self) -> int:
        assert self.session.work is not None
        assert self.session.work.upload is not None
        return self.session.work.upload.number


def verdict(number: int, fate: UploadFate, reason: str = "") -> events.UploadEnded:
    return events.UploadEnded(upload=number, verdict=Verdict(fate=fate, reason=reason))


def at_upload(clients: str = "abc") -> tuple[Machine, Train]:
    """A machine whose clients are all trained and whose upload is under way."""
    machine = Machine(clients)
    machine.attend()
    task = train(clients)
    machine.ready(task)
    for client in clients:
        machine.tell(events.ClientTrained(finished=finished(task, client)))
    return machine, task


def test_what_is_told_is_persisted_first() -> None:
    machine = Machine("a")
    machine.attend()
    task = train("a")
    machine.ready(task)
    out = machine.tell(events.ClientTrained(finished=finished(task, "a")))
    kinds = [type(effect) for effect in out]
    assert kinds.index(effects.KeepUpdate) < kinds.index(effects.Send) < kinds.index(effects.StartUpload)


def test_the_next_client_trains_while_the_last_one_is_written_down() -> None:
    machine = Machine("ab")
    machine.attend()
    task = train("ab")
    machine.ready(task)
    kinds = [type(e) for e in machine.tell(events.ClientTrained(finished=finished(task, "a")))]
    assert kinds.index(effects.TrainClient) < kinds.index(effects.KeepUpdate)


def test_clients_are_trained_one_by_one_in_the_order_asked() -> None:
    machine = Machine("abc")
    machine.attend()
    task = train("cab")
    machine.ready(task)
    order = []
    for _ in "abc":
        (effect,) = machine.asked(effects.TrainClient)
        assert isinstance(effect, effects.TrainClient)
        order.append(effect.client.client)
        machine.tell(events.ClientTrained(finished=finished(task, order[-1])))
    assert order == ["c", "a", "b"]
    (upload,) = machine.asked(effects.StartUpload)
    assert isinstance(upload, effects.StartUpload)
    assert [f.key.client for f in upload.updates] == order


def test_a_retry_on_the_same_base_reuses_finished_work() -> None:
    machine, task = at_upload("ab")
    machine.tell(verdict(machine.upload_number(), UploadFate.DISCARDED, "too_late"))
    out = machine.tell(replace(task, attempt=2))
    assert not machine.asked(effects.TrainClient)
    assert [type(e) for e in out if isinstance(e, effects.StartUpload)] == [effects.StartUpload]


def test_another_task_for_the_round_supersedes_what_was_finished_for_it() -> None:
    machine, _ = at_upload("a")
    out = machine.tell(train("a", task="u", attempt=2))
    (dropped,) = machine.asked(effects.DropUpdates)
    assert isinstance(dropped, effects.DropUpdates)
    assert dropped.reason == "superseded"
    assert any(isinstance(e, effects.StopUpload) for e in out)
    assert machine.session.held == {}


def test_the_running_client_is_left_alone_by_a_new_attempt_and_stopped_by_a_new_base() -> None:
    machine = Machine("ab")
    machine.attend()
    task = train("ab")
    machine.ready(task)
    machine.tell(replace(task, attempt=2))
    assert not machine.asked(effects.StopTraining)
    machine.tell(train("ab", number=1))
    assert machine.asked(effects.StopTraining)
    assert machine.session.job is not None
    assert machine.session.job.stopping


def test_a_result_that_arrives_while_stopping_is_kept_if_its_base_is_still_current() -> None:
    machine = Machine("a")
    machine.attend()
    task = train("a")
    machine.ready(task)
    machine.tell(messages.Cancel(round=1, attempt=1, reason="x"))
    machine.tell(events.ClientTrained(finished=finished(task, "a")))
    assert machine.asked(effects.KeepUpdate)
    machine.tell(events.TrainingStopped())
    assert machine.session.job is None


def test_a_result_on_a_base_that_has_moved_is_forgotten() -> None:
    machine = Machine("a")
    machine.attend()
    task = train("a")
    machine.ready(task)
    machine.tell(messages.Committed(round=1, version=version(1), included=()))
    machine.tell(events.ClientTrained(finished=finished(task, "a")))
    assert machine.asked(effects.ForgetFiles)
    assert not machine.asked(effects.KeepUpdate)


def test_a_cancel_of_another_attempt_changes_nothing() -> None:
    machine = Machine("a")
    machine.attend()
    machine.ready(train("a"))
    before = machine.session
    assert machine.tell(messages.Cancel(round=1, attempt=9, reason="x")) == []
    assert machine.session == before


def test_a_commit_promotes_the_included_and_drops_the_rest() -> None:
    machine, task = at_upload("ab")
    out = machine.tell(messages.Committed(round=1, version=version(1), included=("a",)))
    promoted = next(e for e in out if isinstance(e, effects.Promote))
    dropped = next(e for e in out if isinstance(e, effects.DropUpdates))
    assert promoted.keys == (task.key("a"),)
    assert dropped.keys == (task.key("b"),)
    assert out.index(promoted) < out.index(dropped)
    assert machine.session.clients == {"a": 1, "b": 0}
    assert machine.session.work is None


def test_a_repeated_commit_message_promotes_nothing_again() -> None:
    machine, _ = at_upload("a")
    commit = messages.Committed(round=1, version=version(1), included=("a",))
    machine.tell(commit)
    machine.tell(commit)
    assert not machine.asked(effects.Promote)
    assert not machine.asked(effects.Reinitialise)


def test_a_commit_whose_pending_state_is_not_here_starts_the_client_anew() -> None:
    machine = Machine("a")
    machine.attend()
    machine.tell(messages.Committed(round=1, version=version(1), included=("a",)))
    (effect,) = machine.asked(effects.Reinitialise)
    assert effect == effects.Reinitialise(rounds={"a": 1}, reason="state_lost")


def test_a_commit_that_moved_nothing_still_ends_the_round() -> None:
    machine, _ = at_upload("a")
    same = replace(version(1), model_digest=version(0).model_digest)
    machine.tell(messages.Committed(round=1, version=same, included=()))
    assert machine.session.held == {}
    assert machine.session.work is None


def test_fates_are_applied_in_the_order_of_the_hello() -> None:
    machine, task = at_upload("abc")
    machine.tell(events.LinkLost(reason="unavailable"))
    (hello,) = [e for e in machine.tell(events.DialDue()) if isinstance(e, effects.OpenLink)]
    assert [key.client for key in hello.held_updates] == ["a", "b", "c"]
    fates = (HeldFate.COMMITTED, HeldFate.DISCARDED, HeldFate.KEEP)
    out = machine.tell(welcome(1, fates))
    assert [e.keys for e in out if isinstance(e, effects.Promote)] == [(task.key("a"),)]
    assert [e.keys for e in out if isinstance(e, effects.DropUpdates)] == [(task.key("b"),)]
    assert set(machine.session.held) == {task.key("c")}


def test_the_wrong_number_of_fates_is_the_coordinators_fault_and_changes_nothing() -> None:
    machine, _ = at_upload("a")
    machine.tell(events.LinkLost(reason="unavailable"), events.DialDue())
    before = machine.session
    with pytest.raises(CoordinatorFault):
        step(machine.session, welcome(0, ()))
    assert machine.session == before
    with pytest.raises(CoordinatorFault):
        step(Machine("a").session, welcome())


def test_a_client_whose_fate_was_committed_is_not_reinitialised_by_the_same_welcome() -> None:
    machine, _ = at_upload("a")
    machine.tell(events.LinkLost(reason="unavailable"))
    machine.attend(1, (HeldFate.COMMITTED,), reinitialise={"a": 1})
    assert not machine.asked(effects.Reinitialise)
    assert machine.session.clients == {"a": 1}


def test_the_open_update_of_a_client_no_longer_hosted_is_settled_by_its_fate_alone() -> None:
    machine, task = at_upload("ab")
    machine.tell(events.LinkLost(reason="unavailable"))
    machine.session = replace(machine.session, clients={"a": 0}, work=None)
    machine.attend(0, (HeldFate.KEEP, HeldFate.KEEP))
    machine.tell(messages.Committed(round=1, version=version(1), included=("a",)))
    assert set(machine.session.held) == {task.key("b")}
    machine.tell(events.LinkLost(reason="unavailable"))
    machine.attend(1, (HeldFate.COMMITTED,))
    assert machine.asked(effects.Promote) == [effects.Promote(keys=(task.key("b"),))]
    assert machine.session.clients == {"a": 1}


def test_reinitialising_a_client_drops_what_it_trained_from_the_old_state() -> None:
    machine, task = at_upload("ab")
    machine.tell(events.LinkLost(reason="unavailable"))
    machine.attend(0, (HeldFate.KEEP, HeldFate.KEEP), reinitialise={"a": 4})
    assert set(machine.session.held) == {task.key("b")}
    assert machine.session.clients["a"] == 4


def test_nothing_is_uploaded_in_a_new_session_before_the_task_is_asked_for_again() -> None:
    machine, task = at_upload("a")
    machine.tell(events.LinkLost(reason="unavailable"))
    machine.attend(0, (HeldFate.KEEP,))
    assert not machine.asked(effects.StartUpload)
    machine.tell(task)
    assert machine.asked(effects.StartUpload)


def test_where_single_updates_are_wanted_each_goes_alone_as_soon_as_it_is_finished() -> None:
    machine = Machine("abc")
    machine.attend(individual_updates=True)
    task = train("abc")
    machine.ready(task)
    machine.tell(events.ClientTrained(finished=finished(task, "a")))
    (first,) = machine.asked(effects.StartUpload)
    assert isinstance(first, effects.StartUpload)
    assert [update.key.client for update in first.updates] == ["a"]
    machine.tell(events.ClientTrained(finished=finished(task, "b")))
    machine.tell(events.ClientTrained(finished=finished(task, "c")))
    alone = []
    for _ in "bc":
        machine.tell(verdict(machine.upload_number(), UploadFate.ACCEPTED))
        (upload,) = machine.asked(effects.StartUpload)
        assert isinstance(upload, effects.StartUpload)
        alone.append([update.key.client for update in upload.updates])
    assert alone == [["b"], ["c"]]


def test_another_run_may_take_folds_again() -> None:
    machine = Machine("ab")
    machine.attend(individual_updates=True)
    machine.tell(events.LinkLost(reason="x", detail=""))
    machine.attend()
    task = train("ab")
    machine.ready(task)
    for client in "ab":
        machine.tell(events.ClientTrained(finished=finished(task, client)))
    (upload,) = machine.asked(effects.StartUpload)
    assert isinstance(upload, effects.StartUpload)
    assert len(upload.updates) == 2


def test_a_fold_that_broke_with_its_session_resumes_with_the_same_clients() -> None:
    machine, task = at_upload("ab")
    machine.tell(events.LinkLost(reason="unavailable"))
    machine.attend(0, (HeldFate.KEEP, HeldFate.KEEP))
    machine.tell(train("abc"))
    (upload,) = machine.asked(effects.StartUpload)
    assert isinstance(upload, effects.StartUpload)
    assert [f.key for f in upload.updates] == [task.key("a"), task.key("b")]


def test_an_accepted_client_is_uploaded_again_only_in_a_new_session() -> None:
    machine, task = at_upload("a")
    machine.tell(verdict(machine.upload_number(), UploadFate.ACCEPTED))
    machine.tell(task, messages.Flush(round=1, attempt=1))
    assert not machine.asked(effects.StartUpload)
    machine.tell(events.LinkLost(reason="unavailable"))
    machine.attend(0, (HeldFate.KEEP,))
    machine.tell(task)
    assert machine.asked(effects.StartUpload)


def test_a_verdict_of_an_abandoned_upload_is_ignored() -> None:
    machine, task = at_upload("a")
    number = machine.upload_number()
    machine.tell(replace(task, attempt=2))
    before = machine.session
    machine.tell(verdict(number, UploadFate.REJECTED, "over_norm"))
    assert machine.session == before


def test_a_rejected_client_waits_until_it_is_asked_for_again() -> None:
    machine, task = at_upload("a")
    machine.tell(verdict(machine.upload_number(), UploadFate.REJECTED, "over_norm"))
    assert machine.session.held == {}
    assert not machine.asked(effects.TrainClient)
    machine.tell(task)
    assert machine.asked(effects.TrainClient)


def test_a_failed_client_is_tried_again_when_named_again_in_the_same_attempt() -> None:
    machine = Machine("ab")
    machine.attend()
    task = train("ab")
    machine.ready(task)
    machine.tell(events.ClientFailed(key=task.key("a"), reason="training_failed", detail=""))
    machine.tell(events.ClientTrained(finished=finished(task, "b")))
    machine.tell(verdict(machine.upload_number(), UploadFate.ACCEPTED))
    machine.tell(train("a"))
    assert [e.client.client for e in machine.out if isinstance(e, effects.TrainClient)] == ["a"]


def test_a_task_for_a_client_hosted_elsewhere_is_answered() -> None:
    machine = Machine("a")
    machine.attend()
    machine.tell(train("az"))
    (effect,) = machine.asked(effects.Send)
    assert isinstance(effect, effects.Send)
    assert isinstance(effect.message, messages.TaskFailed)
    assert (effect.message.client, effect.message.reason) == ("z", "client_not_hosted")


def test_a_permanent_refusal_gives_up_and_others_redial_with_growing_waits() -> None:
    machine = Machine("a")
    waits = []
    for _ in range(3):
        machine.tell(events.DialDue(), events.LinkLost(reason="worker_name_taken", uniform=1.0))
        waits += [e.seconds for e in machine.out if isinstance(e, effects.Redial)]
    assert waits == sorted(waits)
    assert len(set(waits)) == 3
    machine.tell(events.DialDue(), events.LinkLost(reason="bad_name"))
    assert machine.asked(effects.GiveUp)
    assert machine.tell(events.DialDue()) == []


def test_a_drain_waits_as_long_as_it_was_told() -> None:
    machine = Machine("a")
    machine.attend()
    out = machine.tell(messages.Drain(reason="x", reconnect_after_seconds=7.0))
    assert [e.seconds for e in out if isinstance(e, effects.Redial)] == [7.0]
    assert machine.session.link is Link.OFFLINE


def test_a_finished_run_keeps_the_stream_for_evaluations() -> None:
    machine = Machine("a")
    machine.attend()
    machine.tell(messages.RunChanged(reason="done", finished=True))
    assert machine.session.link is Link.ATTENDING
    machine.tell(messages.Evaluate(version=version(0), run_seed=1))
    assert machine.asked(effects.RunEvaluation)


def test_a_known_other_run_is_entered_with_a_hello_of_its_own() -> None:
    machine = Machine("ab")
    stored = events.StoredRun(run_id="run-2", rounds={"a": 3})
    machine.tell(events.DialDue())
    machine.tell(events.Welcomed(welcome=welcome(run_id="run-2").welcome, stored=stored))
    assert machine.asked(effects.EnterRun)
    assert machine.asked(effects.CloseLink)
    hello = next(e for e in machine.tell(events.DialDue()) if isinstance(e, effects.OpenLink))
    assert (hello.run_id, hello.clients) == ("run-2", {"a": 3, "b": 0})


def test_training_goes_before_evaluation_and_evaluations_are_bounded() -> None:
    machine = Machine("a")
    machine.attend()
    machine.tell(train("a"))
    for _ in range(6):
        machine.tell(messages.Evaluate(version=version(0), run_seed=1))
    assert machine.session.job is None
    assert len(machine.session.evaluations) == 4
    machine.tell(events.Prepared(key=train("a").key(""), number=0))
    assert machine.asked(effects.TrainClient)


def on_clients(number: int = 0, clients: str = "a") -> messages.Evaluate:
    tasks = tuple(TaskClient(client=client) for client in clients)
    return messages.Evaluate(version=version(number), run_seed=1, clients=tasks)


def test_clients_are_measured_before_any_of_them_is_trained() -> None:
    machine = Machine("ab")
    machine.attend()
    machine.tell(messages.Evaluate(version=version(0), run_seed=1), on_clients(), train("ab"))
    (probe,) = machine.asked(effects.RunEvaluation)
    assert not probe.evaluate.clients, "nothing else was there to do when it came"
    assert machine.asked(effects.Prepare), "the base is fetched meanwhile"
    machine.tell(events.Prepared(key=train("ab").key(""), number=0))
    assert not machine.asked(effects.TrainClient)
    machine.tell(events.EvaluationEnded(version=0, values={"x": 1.0}))
    (of_clients,) = machine.asked(effects.RunEvaluation)
    assert of_clients.evaluate == on_clients()
    out = machine.tell(events.EvaluationEnded(version=0, values={"clients": 1.0}, clients=("a",)))
    done = messages.EvaluationDone(version=0, values={"clients": 1.0}, clients=("a",))
    assert effects.Send(message=done) in out
    assert machine.asked(effects.TrainClient)


def test_an_evaluation_of_clients_that_waits_is_forgotten_with_its_session() -> None:
    machine = Machine("a")
    machine.attend()
    machine.ready(train("a"))
    machine.tell(on_clients(), messages.Evaluate(version=version(0), run_seed=1))
    assert len(machine.session.evaluations) == 2
    machine.tell(events.LinkLost(reason="unavailable"))
    assert [each.clients for each in machine.session.evaluations] == [()], "who asked for clients asks again"


def test_an_evaluation_of_clients_too_many_is_answered_as_one() -> None:
    machine = Machine("a")
    machine.attend()
    machine.ready(train("a"))
    for number in range(5):
        machine.tell(on_clients(number))
    done = messages.EvaluationDone(version=0, error="superseded", clients=())
    assert machine.asked(effects.Send) == [effects.Send(message=done)]


def test_what_was_measured_of_one_run_is_not_told_to_another() -> None:
    machine = Machine("a")
    machine.attend()
    machine.tell(on_clients())
    machine.tell(events.LinkLost(reason="unavailable"))
    machine.tell(events.EvaluationEnded(version=0, values={"clients": 1.0}, clients=("a",)))
    machine.tell(events.DialDue())
    machine.tell(events.Welcomed(welcome=welcome(run_id="run-2").welcome))
    machine.tell(events.LinkLost(reason="unavailable"))
    machine.tell(events.DialDue(), welcome(run_id="run-2"))
    assert not machine.asked(effects.Send)


def test_a_worker_without_labels_gives_up_on_a_method_that_needs_them() -> None:
    machine = Machine("a")
    machine.tell(events.DialDue(), events.LinkLost(reason="labels_needed", detail="use folders with classes"))
    (given_up,) = machine.asked(effects.GiveUp)
    assert given_up.detail == "use folders with classes"
    assert machine.session.stopped


def test_an_evaluation_that_ended_offline_is_sent_with_the_next_welcome() -> None:
    machine = Machine("a")
    machine.attend()
    machine.tell(messages.Evaluate(version=version(0), run_seed=1))
    machine.tell(events.LinkLost(reason="unavailable"))
    machine.tell(events.EvaluationEnded(version=0, values={"x": 1.0}))
    assert not machine.asked(effects.Send)
    machine.attend()
    (effect,) = machine.asked(effects.Send)
    assert effect == effects.Send(message=messages.EvaluationDone(version=0, values={"x": 1.0}))


def test_versions_are_bounded_and_the_base_in_use_is_kept() -> None:
    machine = Machine("a")
    machine.attend()
    for number in range(3):
        task = train("a", number=number)
        machine.ready(task)
        machine.tell(messages.Committed(round=number + 1, version=version(number + 1), included=()))
        machine.tell(events.TrainingStopped())
    assert set(machine.session.versions) == {1, 2}


def test_stop_lets_go_of_everything_and_starts_nothing() -> None:
    machine, task = at_upload("ab")
    machine.tell(events.StopRequested())
    assert machine.asked(effects.CloseLink)
    assert machine.asked(effects.StopUpload)
    assert len(machine.session.held) == 2
    assert machine.tell(events.DialDue()) == []
    assert task.key("a") in machine.session.held


class History(RuleBasedStateMachine):
    """Any order of events a coordinator, a training process and a network can produce."""

    clients = "abc"

    def __init__(self) -> None:
        super().__init__()
        self.session = Session(clients=dict.fromkeys(self.clients, 0), run_id=RUN)
        self.number = 0
        self.attempt = 0
        self.sessions = 0
        self.accepted: set[tuple[int, int, int, str]] = set()
        self.included: dict[str, set[int]] = {client: set() for client in self.clients}
        self.promoted: list[tuple[str, int]] = []
        self.kept: set[messages.UpdateKey] = set()
        self.uploading: effects.StartUpload | None = None
        self.last_task: Train | None = None
        self.done: list[Finished] = []

    def tell(self, event: events.Event) -> None:
        self.session, out = step(self.session, event)
        for effect in out:
            self.obey(effect)

    def obey(self, effect: Effect) -> None:
        match effect:
            case effects.KeepUpdate():
                assert effect.finished.key not in self.kept, "a finished update is kept once"
                self.kept.add(effect.finished.key)
            case effects.DropUpdates():
                assert set(effect.keys) <= self.kept
                self.kept -= set(effect.keys)
            case effects.Promote():
                for key in effect.keys:
                    assert key in self.kept, "only what is stored can be promoted"
                    assert key.round in self.included[key.client], "only a commit promotes"
                    assert (key.client, key.round) not in self.promoted, "at most once per round"
                    assert all(r < key.round for c, r in self.promoted if c == key.client), "never backwards"
                    self.promoted.append((key.client, key.round))
                    self.kept.remove(key)
            case effects.StartUpload():
                assert self.session.link is Link.ATTENDING
                for update in effect.updates:
                    assert update.key in self.kept, "what is uploaded is on disk"
                    mark = (self.sessions, effect.train.round, effect.train.attempt, update.key.client)
                    assert mark not in self.accepted, "no client twice in an attempt and session"
                self.uploading = effect
            case effects.StopUpload():
                self.uploading = None
            case effects.TrainClient():
                assert effect.train.key(effect.client.client) not in self.kept, (
                    "finished work is not done again"
                )

    @invariant()
    def memory_and_disk_agree(self) -> None:
        assert set(self.session.held) == self.kept

    @invariant()
    def one_update_per_client_and_round(self) -> None:
        pairs = [(key.client, key.round) for key in self.session.held]
        assert len(pairs) == len(set(pairs))

    @precondition(lambda self: self.session.link is Link.OFFLINE)
    @rule(data=st.data())
    def reconnect(self, data: st.DataObject) -> None:
        self.tell(events.DialDue())
        if self.session.link is not Link.DIALLING:
            return
        fates = []
        for key in self.session.hello_held:
            if key.round in self.included[key.client]:
                fates.append(HeldFate.COMMITTED)
            elif key.round == self.number + 1:
                fates.append(data.draw(st.sampled_from([HeldFate.KEEP, HeldFate.KEEP, HeldFate.DISCARDED])))
            else:
                fates.append(HeldFate.DISCARDED)
        self.sessions += 1
        self.tell(welcome(self.number, tuple(fates)))

    @precondition(lambda self: self.session.link is Link.ATTENDING)
    @rule()
    def lose(self) -> None:
        self.uploading = None
        self.tell(events.LinkLost(reason="unavailable"))

    @precondition(lambda self: self.session.link is Link.ATTENDING)
    @rule(
        clients=st.sets(st.sampled_from("abc"), min_size=1), fresh=st.booleans(), task=st.sampled_from("ttu")
    )
    def ask(self, clients: set[str], fresh: bool, task: str) -> None:
        self.attempt += 1 if fresh or self.attempt == 0 else 0
        self.last_task = train("".join(sorted(clients)), self.number, self.attempt, task)
        self.tell(self.last_task)

    @rule(ok=st.sampled_from([True, True, True, False]), retry=st.booleans())
    def prepare(self, ok: bool, retry: bool) -> None:
        work = self.session.work
        if work is None or work.stage.value != "preparing":
            return
        key = work.train.key("")
        if ok:
            self.tell(events.Prepared(key=key, number=work.train.base.number))
        else:
            self.tell(events.PrepareFailed(key=key, reason="x", detail="", retry=retry))

    @rule(outcome=st.sampled_from(["ok", "ok", "ok", "fail", "task", "stop"]))
    def child(self, outcome: str) -> None:
        job = self.session.job
        if job is None:
            return
        if job.key is not None and outcome == "ok":
            made = Finished(key=job.key, weight=1, seconds=1.0, body_size=8, chunk_digests=b"")
            self.tell(events.ClientTrained(finished=made))
        elif job.key is not None and outcome in {"fail", "task"} and not job.stopping:
            self.tell(events.ClientFailed(key=job.key, reason="x", detail="", whole_task=outcome == "task"))
        elif job.version is not None and not job.stopping:
            self.tell(events.EvaluationEnded(version=job.version))
        if self.session.job is not None and self.session.job.stopping:
            self.tell(events.TrainingStopped())

    @precondition(lambda self: self.uploading is not None)
    @rule(
        fate=st.sampled_from(
            ["accepted", "accepted", "duplicate", "too_late", "rejected", "broken", "left_out"]
        )
    )
    def judge(self, fate: str) -> None:
        upload = self.uploading
        assert upload is not None
        if fate == "left_out":
            bad = {upload.updates[0].key: ("over_norm", "x")}
            self.uploading = None
            self.tell(events.UploadLeftOut(upload=upload.upload, failures=bad))
            rest = upload.updates[1:]
            # Another upload may have begun; otherwise this one goes on without the bad client.
            if self.uploading is None and rest:
                self.uploading = replace(upload, updates=rest)
            return
        self.uploading = None
        if fate == "broken":
            self.tell(events.UploadBroken(upload=upload.upload))
            return
        kind, reason = {
            "accepted": (UploadFate.ACCEPTED, ""),
            "duplicate": (UploadFate.DISCARDED, "duplicate"),
            "too_late": (UploadFate.DISCARDED, "too_late"),
            "rejected": (UploadFate.REJECTED, "over_norm"),
        }[fate]
        if fate == "accepted":
            for update in upload.updates:
                mark = (self.sessions, upload.train.round, upload.train.attempt, update.key.client)
                self.accepted.add(mark)
        self.tell(verdict(upload.upload, kind, reason))

    @precondition(lambda self: self.session.link is Link.ATTENDING)
    @rule()
    def hurry(self) -> None:
        self.tell(messages.Flush(round=self.number + 1, attempt=self.attempt))

    @rule(heard=st.booleans())
    def commit(self, heard: bool) -> None:
        """Clients the coordinator has folded in this attempt are included; the news may be lost with the stream."""
        included = tuple(
            sorted({c for s, r, a, c in self.accepted if r == self.number + 1 and a == self.attempt})
        )
        self.number += 1
        self.attempt = 0
        for client in included:
            self.included[client].add(self.number)
        if self.session.link is not Link.ATTENDING:
            return
        if heard:
            self.uploading = None
            news = messages.Committed(round=self.number, version=version(self.number), included=included)
            self.tell(news)
        else:
            self.lose()

    @precondition(lambda self: self.session.link is Link.ATTENDING)
    @rule(clients=st.sampled_from(["", "a", "abc"]))
    def evaluate(self, clients: str) -> None:
        self.tell(on_clients(self.number, clients))

    @precondition(lambda self: self.session.link is Link.ATTENDING)
    @rule()
    def cancel(self) -> None:
        self.uploading = None
        self.tell(messages.Cancel(round=self.number + 1, attempt=self.attempt, reason="x"))


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize(
    "change",
    [
        {"values": {"t": 0.0}},
        {"rounds": 11},
        {"run_seed": 2},
        {"threads": 2},
        {"quality": True},
        {"expected_clients": 2},
        {"sample_digest": "a" * 64},
        {"base": replace(version(0), model_digest="e" * 64)},
        {"artefacts": (Artefact(name="basis", blob=BlobRef(digest="f" * 64, size=4), shape=(1,)),)},
        {"task_digest": "f" * 64},
    ],
)
def test_a_task_whose_digest_does_not_fit_what_it_says_is_not_worked_at(change: dict[str, Any]) -> None:
    """Workers that were told different things under one digest would help to take one of them out of their sum."""
    machine = Machine()
    machine.attend()
    lie = replace(train("abc"), **change)
    before = machine.session
    with pytest.raises(CoordinatorFault, match="digest"):
        machine.tell(lie)
    assert machine.session is before
    # The same with a digest of its own is other work, and fine.
    if "task_digest" not in change:
        machine.tell(replace(lie, task_digest=lie.computed_digest(RUN, "d" * 64)))
        assert machine.asked(effects.Prepare)


def test_a_task_of_another_run_or_method_is_not_worked_at() -> None:
    task = train("abc")
    for run, declaration in (("run-2", "d" * 64), (RUN, "c" * 64)):
        machine = Machine()
        machine.attend()
        with pytest.raises(CoordinatorFault, match="digest"):
            machine.tell(replace(task, task_digest=task.computed_digest(run, declaration)))
