"""The session machine: refusals, other runs, evaluations, cached versions and the end."""

from __future__ import annotations

from rounds.session_machine import Machine, at_upload, finished, on_clients, train, version, welcome
from ssd_wire import messages
from worker.core import effects, events
from worker.core.state import Link


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


def test_a_training_that_finishes_although_another_task_took_its_place_is_forgotten() -> None:
    machine = Machine("a")
    machine.attend()
    first = train("a", task="u")
    machine.tell(first, events.Prepared(key=first.key(""), number=0))
    # The coordinator was started anew with other settings: the same round, another task.
    machine.tell(events.LinkLost(reason="unavailable"))
    machine.attend()
    second = train("a", task="t")
    out = machine.tell(second, events.ClientTrained(finished=finished(first, "a")))
    assert [one.key for each in out if isinstance(each, effects.ForgetFiles) for one in each.finished] == [
        first.key("a")
    ]
    assert not [each for each in out if isinstance(each, effects.KeepUpdate)]
    machine.tell(events.TrainingStopped(), events.Prepared(key=second.key(""), number=0))
    out = machine.tell(events.ClientTrained(finished=finished(second, "a")))
    assert [each.finished.key for each in out if isinstance(each, effects.KeepUpdate)] == [second.key("a")]
    assert list(machine.session.held) == [second.key("a")]
