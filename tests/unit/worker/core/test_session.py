"""The session machine: tasks, training, commits and the fates of updates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rounds.session_machine import RUN, Machine, at_upload, finished, train, verdict, version, welcome
from ssd_wire import messages
from ssd_wire.messages import Artefact, BlobRef, HeldFate
from ssd_wire.uploads import UploadFate
from worker.core import effects, events
from worker.core.session import step
from worker.errors import CoordinatorFault


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
