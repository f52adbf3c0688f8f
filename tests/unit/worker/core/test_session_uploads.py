"""The session machine: what is uploaded, together or one by one, and what follows a verdict."""

from __future__ import annotations

from dataclasses import replace

from rounds.session_machine import Machine, at_upload, finished, train, verdict
from ssd_wire import messages
from ssd_wire.messages import HeldFate
from ssd_wire.uploads import UploadFate
from worker.core import effects, events


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
