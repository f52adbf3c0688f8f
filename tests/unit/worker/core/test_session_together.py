"""The session machine: clients that are trained together, in a fold that grows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rounds.session_machine import Machine, on_clients, train, verdict
from ssd_wire import messages
from ssd_wire.messages import HeldFate, Train
from ssd_wire.uploads import UploadFate
from worker.core import effects, events
from worker.core.finished import Finished


def together(clients: str = "abc", **welcome: Any) -> tuple[Machine, Train]:
    machine = Machine(clients)
    machine.session = replace(machine.session, adds_up=True)
    machine.attend(**welcome)
    task = train(clients)
    machine.ready(task)
    return machine, task


def written(
    task: Train, clients: str, added: str, name: str = "f1", before: str = "", *, closed: bool = False
) -> events.FoldWritten:
    finished = tuple(
        Finished(
            key=task.key(client),
            weight=1,
            seconds=1.0,
            body_size=8,
            chunk_digests=b"",
            fold=name,
            fold_clients=len(clients),
        )
        for client in clients
    )
    return events.FoldWritten(
        key=task.key(""), finished=finished, added=frozenset(added), before=before, closed=closed
    )


def asked_for(machine: Machine) -> list[str]:
    """Clients of each order to train, a text an order."""
    return [
        "".join(task.client for task in effect.clients)
        if isinstance(effect, effects.TrainTogether)
        else effect.client.client
        for effect in machine.out
        if isinstance(effect, effects.TrainTogether | effects.TrainClient)
    ]


def uploaded(machine: Machine) -> list[str]:
    return [
        "".join(update.key.client for update in effect.updates)
        for effect in machine.out
        if isinstance(effect, effects.StartUpload)
    ]


def held(machine: Machine) -> str:
    return "".join(sorted(key.client for key in machine.session.held))


def test_all_are_given_to_the_training_process_at_once_and_go_up_as_the_one_fold_they_are_in() -> None:
    machine, task = together()
    assert asked_for(machine) == ["abc"]
    machine.tell(written(task, "ab", "ab"))
    assert not uploaded(machine), "it still grows"
    machine.tell(written(task, "abc", "c", "f2", "f1", closed=True))
    machine.tell(events.TogetherEnded(key=task.key("")))
    upload = machine.session.work
    assert upload is not None
    assert upload.upload is not None
    assert {finished.fold for finished in machine.session.held.values()} == {"f2"}
    machine.tell(verdict(machine.upload_number(), UploadFate.ACCEPTED))
    assert machine.session.work is not None
    assert machine.session.work.delivered == set("abc")


def test_what_is_written_is_kept_before_it_is_told() -> None:
    machine, task = together("ab")
    out = machine.tell(written(task, "a", "a"))
    kinds = [type(effect) for effect in out]
    assert kinds.index(effects.KeepFold) < kinds.index(effects.Send)


def test_single_updates_are_trained_singly() -> None:
    for welcome in ({"individual_updates": True}, {"level": "passive"}):
        machine, _ = together("ab", **welcome)
        assert "ab" not in asked_for(machine)


def test_a_client_that_fails_is_reported_and_the_others_go_on() -> None:
    machine, task = together()
    machine.tell(events.ClientFailed(key=task.key("b"), reason="training_failed", detail=""))
    assert [e.message.client for e in machine.out if isinstance(e, effects.Send)] == ["b"]  # type: ignore[union-attr]
    machine.tell(written(task, "ac", "ac", closed=True), events.TogetherEnded(key=task.key("")))
    assert uploaded(machine) == ["ac"]


def test_a_process_that_died_costs_what_it_had_not_written_and_the_rest_is_trained_one_by_one() -> None:
    machine, task = together()
    machine.tell(written(task, "a", "a"))
    machine.tell(events.TogetherEnded(key=task.key(""), died="killed by SIGKILL"))
    assert asked_for(machine) == ["b"]
    machine.tell(events.ClientFailed(key=task.key("b"), reason="training_process_died", detail=""))
    assert asked_for(machine) == ["c"]


def test_flush_ends_the_job_and_uploads_what_there_is() -> None:
    machine, task = together()
    machine.tell(written(task, "a", "a"))
    machine.tell(messages.Flush(round=1, attempt=1))
    assert machine.asked(effects.EndTogether)
    assert not uploaded(machine)
    machine.tell(messages.Flush(round=1, attempt=1))
    assert not machine.asked(effects.EndTogether), "once is enough"
    machine.tell(written(task, "a", "", "f1", "f1", closed=True))
    assert uploaded(machine) == ["a"]
    machine.tell(written(task, "b", "b", "g1", closed=True), events.TogetherEnded(key=task.key("")))
    assert asked_for(machine) == ["c"], "from now on each goes up as soon as it is finished"


def test_an_evaluation_of_clients_goes_before_those_that_are_not_trained_yet() -> None:
    machine, task = together()
    machine.tell(on_clients(0, "a"))
    assert machine.asked(effects.EndTogether)
    machine.tell(written(task, "a", "a", closed=True), events.TogetherEnded(key=task.key("")))
    assert machine.asked(effects.RunEvaluation)
    machine.tell(events.EvaluationEnded(version=0, clients=()))
    assert asked_for(machine) == ["bc"]


def test_after_a_restart_what_was_written_is_used() -> None:
    machine, task = together()
    machine.tell(written(task, "ab", "ab"))
    machine.session = replace(machine.session, job=None, work=None)
    machine.tell(events.LinkLost(reason="unavailable"))
    machine.attend(0, (HeldFate.KEEP, HeldFate.KEEP))
    machine.ready(task)
    assert asked_for(machine) == ["c"]


def test_a_fold_of_which_one_client_is_not_wanted_any_more_is_of_no_use_to_the_others() -> None:
    machine, task = together()
    machine.tell(written(task, "abc", "abc", closed=True), events.TogetherEnded(key=task.key("")))
    machine.tell(replace(task, attempt=2, clients=task.clients[:2]))
    (dropped,) = machine.asked(effects.DropUpdates)
    assert isinstance(dropped, effects.DropUpdates)
    assert (dropped.keys, dropped.reason) == ((task.key("a"), task.key("b")), "fold_split")
    assert asked_for(machine) == ["ab"]


def test_a_refused_fold_is_followed_by_single_training_and_single_uploads() -> None:
    machine, task = together("ab")
    machine.tell(written(task, "ab", "ab", closed=True), events.TogetherEnded(key=task.key("")))
    machine.tell(verdict(machine.upload_number(), UploadFate.REJECTED, "over_norm"))
    assert held(machine) == ""
    assert asked_for(machine) == ["a"]


def test_a_duplicate_fold_leaves_everything_as_it_is_and_asks_the_coordinator_anew() -> None:
    machine, task = together("ab")
    machine.tell(written(task, "ab", "ab", closed=True), events.TogetherEnded(key=task.key("")))
    machine.tell(verdict(machine.upload_number(), UploadFate.DISCARDED, "duplicate"))
    assert machine.asked(effects.CloseLink)
    assert held(machine) == "ab"


def test_who_was_let_go_of_does_not_come_back_with_the_next_file() -> None:
    machine, task = together()
    machine.tell(written(task, "ab", "ab"))
    # The coordinator's record of "a" differs: its state begins anew, and its update must not count.
    machine.tell(events.LinkLost(reason="unavailable"))
    machine.attend(0, (HeldFate.KEEP, HeldFate.KEEP), reinitialise={"a": 0})
    assert held(machine) == "b"
    machine.tell(written(task, "abc", "c", "f2", "f1", closed=True))
    assert held(machine) == "bc"
    machine.tell(task, events.TogetherEnded(key=task.key("")))
    assert asked_for(machine) == ["abc"], "a fold with it is of no use"


def test_a_fold_for_a_version_that_a_commit_has_replaced_is_forgotten() -> None:
    machine, task = together("ab")
    other = replace(task.key(""), base_digest="9" * 64)
    late = replace(written(task, "a", "a"), key=other)
    out = machine.tell(late)
    assert not machine.asked(effects.KeepFold)
    assert any(isinstance(effect, effects.ForgetFiles) for effect in out)
