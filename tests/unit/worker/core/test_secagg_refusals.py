"""Messages that no honest coordinator sends under secure aggregation: each ends the round once, or nothing at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from secure.secure_session import (
    ADVERT,
    ID,
    OTHER,
    RUN,
    SURVIVORS,
    Machine,
    delivery,
    heard,
    joined,
    offer,
    private,
    ready,
    train,
    uploading,
    version,
    welcome,
)
from ssd.privacy.settings import PrivacySettings
from ssd.secagg.protocol.errors import AbortReason
from ssd.secagg.protocol.messages import (
    AbortNotice,
    Message,
    Opened,
    Refusal,
    Roster,
    SetProof,
)
from ssd_wire import messages
from ssd_wire.messages import TaskClient
from worker.core import effects, events
from worker.core.state import SecureTerms


@pytest.mark.parametrize(
    "message",
    [Roster(adverts=()), delivery(), SURVIVORS, SetProof(signatures=())],
    ids=lambda message: type(message).__name__,
)
def test_a_message_for_keys_this_process_does_not_have_is_refused_aloud(message: Message) -> None:
    machine, _ = joined()
    machine.tell(heard(message, OTHER))
    (refusal,) = machine.said()
    assert isinstance(refusal, Refusal)
    assert refusal.reason == AbortReason.UNEXPECTED_MESSAGE
    assert refusal.detail == "refused as unexpected_message; the worker's own log says more"
    assert "started again" in str(machine.asked(effects.Note)[-1].fields["detail"])
    assert not machine.asked(effects.TellSecure)
    # The round it does have the keys of goes on.
    assert machine.session.secure is not None
    assert not machine.session.secure.over


@pytest.mark.parametrize(
    "message",
    [
        AbortNotice(reason="deadline", detail=""),
        Opened(opened_digest=bytes(32), survivors=2, next_model_digest=bytes(32)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_the_end_of_another_round_id_ends_nothing_here(message: Message) -> None:
    machine, _ = joined()
    machine.tell(heard(message, OTHER))
    assert not machine.said()
    assert not machine.asked(effects.CloseSecure)


@pytest.mark.parametrize(
    "bad",
    [
        heard(ADVERT),
        heard(Refusal(reason="deadline", detail="")),
        events.SecureUnreadable(round_id=ID, detail="no message"),
    ],
    ids=["advert", "refusal", "unreadable"],
)
def test_what_no_coordinator_may_say_ends_the_round_once(bad: events.Event) -> None:
    machine, task = ready()
    machine.tell(bad)
    (refusal,) = machine.said()
    assert isinstance(refusal, Refusal)
    assert refusal.reason == AbortReason.MALFORMED_MESSAGE
    assert machine.asked(effects.CloseSecure)
    machine.tell(bad, heard(SURVIVORS), heard(delivery()), heard(offer(task)))
    assert not machine.said()
    assert not machine.asked(effects.TellSecure)
    assert not machine.asked(effects.JoinSecure)
    machine.finish(task, "ab")
    assert not machine.asked(effects.StartUpload)


def test_an_offer_in_the_name_of_another_round_id_is_not_taken() -> None:
    machine, task = Machine(), train("ab")
    machine.attend()
    machine.tell(task, heard(offer(task, OTHER), ID))
    assert not machine.asked(effects.JoinSecure)


@pytest.mark.parametrize("stale", [{"attempt": 2}, {"round": 7}])
def test_an_offer_for_another_attempt_is_not_taken(stale: dict[str, int]) -> None:
    machine, task = Machine(), train("ab")
    machine.attend()
    machine.tell(task, heard(replace(offer(task), **stale)))
    assert not machine.asked(effects.JoinSecure)


def test_an_offer_without_a_task_is_not_taken() -> None:
    machine = Machine()
    machine.attend()
    machine.tell(heard(offer(train("ab"))))
    assert not machine.asked(effects.JoinSecure)


def test_a_refusal_of_the_participant_is_told_and_cut_to_length() -> None:
    machine, _ = uploading()
    machine.tell(events.SecureRefused(round_id=ID, reason=AbortReason.TOO_FEW_SURVIVORS, detail="ä" * 5000))
    (refusal,) = machine.said()
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "too_few_survivors"
    assert machine.asked(effects.StopUpload)
    assert machine.asked(effects.CloseSecure)


def test_an_answer_of_a_round_that_is_over_is_not_sent() -> None:
    machine, _ = ready()
    machine.tell(heard(AbortNotice(reason="deadline", detail="")))
    machine.answer(ADVERT)
    assert not machine.said()


def test_clients_that_fail_their_check_are_left_out_of_a_resumed_upload() -> None:
    machine, task = uploading()
    assert machine.session.work is not None
    assert machine.session.work.upload is not None
    failures = {task.key("a"): ("not_finite", "a NaN")}
    machine.tell(events.UploadLeftOut(upload=machine.session.work.upload.number, failures=failures))
    machine.redial()
    machine.tell(task)
    (again,) = machine.asked(effects.StartUpload)
    assert isinstance(again, effects.StartUpload)
    assert [each.key.client for each in again.updates] == ["b"]


def test_another_task_in_the_same_attempt_ends_the_keys_that_were_made_for_the_first() -> None:
    """They are bound to the first task's digest, and what is trained now is not what the others agreed to."""
    machine, task = ready()
    other = replace(task, values={"lr": 0.0})
    machine.tell(replace(other, task_digest=other.computed_digest(RUN, "d" * 64)))
    assert machine.asked(effects.CloseSecure) == [effects.CloseSecure(round_id=ID)]
    assert machine.session.secure is None
    # The same task once more changes nothing.
    machine, task = ready()
    machine.tell(task)
    assert not machine.asked(effects.CloseSecure)


@pytest.mark.parametrize(
    ("level", "privacy"), [("passive", None), ("active", None), ("off", private("central")), ("off", None)]
)
def test_what_clients_score_leaves_the_host_only_in_a_run_that_protects_nobody(
    level: str, privacy: PrivacySettings | None
) -> None:
    news = welcome(level=level)
    machine = Machine(terms=SecureTerms(cannot_sign=""))
    machine.tell(events.DialDue(), replace(news, welcome=replace(news.welcome, privacy=privacy)))
    asked = messages.Evaluate(
        version=version(0), run_seed=1, clients=(TaskClient(client="a"), TaskClient(client="b"))
    )
    machine.tell(asked)
    plain = level == "off" and privacy is None
    assert bool(machine.asked(effects.RunEvaluation)) is plain
    refused = messages.EvaluationDone(version=0, error="not_in_the_clear", clients=())
    assert (effects.Send(message=refused) in machine.out) is not plain
    # On the worker's own probe data, which are no client's, it measures.
    machine.tell(messages.Evaluate(version=version(0), run_seed=1))
    assert bool(machine.asked(effects.RunEvaluation)) is not plain
