"""Client states under secure aggregation: a coordinator that says who was in a round, or who has to begin anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from secure.secure_session import (
    ADVERT,
    ID,
    OTHER,
    SURVIVORS,
    Machine,
    heard,
    train,
    uploading,
    version,
    welcome,
)
from ssd.secagg.protocol.errors import AbortReason
from ssd.secagg.protocol.messages import AbortNotice
from ssd_wire import messages
from ssd_wire.messages import HeldFate
from ssd_wire.uploads import UploadFate
from worker.core import effects, events
from worker.core.finished import Finished
from worker.core.state import Session


def committed(clients: str, number: int = 1) -> messages.Committed:
    return messages.Committed(round=number, version=version(number), included=tuple(clients))


def finished(task: messages.Train, client: str) -> Finished:
    return Finished(
        key=task.key(client), weight=1, seconds=1.0, body_size=8, chunk_digests=b"", state_digest="5"
    )


def promoted(machine: Machine) -> list[str]:
    return [key.client for each in machine.asked(effects.Promote) for key in each.keys]  # type: ignore[attr-defined]


def reinitialised(machine: Machine) -> dict[str, int]:
    return {
        client: number
        for each in machine.asked(effects.Reinitialise)
        for client, number in each.rounds.items()  # type: ignore[attr-defined]
    }


def hello(machine: Machine, fates: tuple[HeldFate, ...], number: int = 1, **fields: Any) -> None:
    """The stream breaks; the next welcome says this of what is held."""
    said = welcome(number, held=len(fates))
    changed = replace(said.welcome, held_fates=fates, **fields)
    machine.tell(events.LinkLost(reason="silent"), events.DialDue(), replace(said, welcome=changed))


def test_what_was_masked_and_committed_is_promoted() -> None:
    machine, _ = uploading()
    machine.judge(UploadFate.ACCEPTED)
    machine.tell(committed("ab"))
    assert promoted(machine) == ["a", "b"]
    assert machine.session.clients == {"a": 1, "b": 1}
    assert machine.session.summed == frozenset()


def test_also_if_the_stream_broke_before_the_survivor_set_came() -> None:
    machine, _ = uploading()
    machine.judge(UploadFate.ACCEPTED)
    hello(machine, (HeldFate.COMMITTED, HeldFate.COMMITTED))
    assert promoted(machine) == ["a", "b"]
    assert reinitialised(machine) == {}


def test_a_commit_with_clients_that_this_worker_masked_nothing_of_promotes_nothing() -> None:
    """The task was never offered a sum: who is `included` is only the coordinator's word."""
    machine, task = Machine("ab"), train("ab")
    machine.attend()
    machine.tell(task)
    machine.finish(task, "ab")
    machine.tell(committed("a"))
    assert promoted(machine) == []
    assert reinitialised(machine) == {"a": 1}
    assert machine.session.clients == {"a": 1, "b": 0}


def test_the_same_said_of_held_updates_in_a_welcome() -> None:
    machine, task = Machine("ab"), train("ab")
    machine.attend()
    machine.tell(task)
    machine.finish(task, "ab")
    hello(machine, (HeldFate.COMMITTED, HeldFate.KEEP))
    assert promoted(machine) == []
    assert reinitialised(machine) == {"a": 1}
    assert next(each.reason for each in machine.asked(effects.DropUpdates)) == "in_no_sum"  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["aborted", "refused"])
def test_an_attempt_that_came_to_nothing_here_promotes_nothing(how: str) -> None:
    machine, _ = uploading()
    machine.judge(UploadFate.ACCEPTED)
    if how == "aborted":
        machine.tell(heard(AbortNotice(reason="deadline", detail="")))
    else:
        machine.tell(heard(SURVIVORS))
        reason = AbortReason.SURVIVORS_WITHOUT_SELF
        machine.tell(events.SecureRefused(round_id=ID, reason=reason, detail=""))
    machine.tell(committed("ab"))
    assert promoted(machine) == []
    assert reinitialised(machine) == {"a": 1, "b": 1}


def test_the_word_of_another_round_takes_nothing_back() -> None:
    machine, _ = uploading()
    machine.judge(UploadFate.ACCEPTED)
    machine.tell(heard(AbortNotice(reason="deadline", detail=""), OTHER))
    machine.tell(committed("ab"))
    assert promoted(machine) == ["a", "b"]


def test_who_failed_the_last_check_is_not_in_the_sum() -> None:
    machine, task = uploading()
    assert machine.session.work is not None
    assert machine.session.work.upload is not None
    left_out = events.UploadLeftOut(
        upload=machine.session.work.upload.number, failures={task.key("a"): ("not_finite", "")}
    )
    machine.tell(left_out)
    assert {client for *_, client in machine.session.summed} == {"b"}


def test_a_restarted_worker_knows_from_its_store_what_it_masked() -> None:
    task = train("ab")
    held = {task.key(client): finished(task, client) for client in "ab"}
    summed = frozenset({(1, task.base.model_digest, "a")})
    machine = Machine("ab", held=held, summed=summed, level="passive")
    said = welcome(1, held=2)
    fates = (HeldFate.COMMITTED, HeldFate.COMMITTED)
    machine.tell(events.DialDue(), replace(said, welcome=replace(said.welcome, held_fates=fates)))
    assert promoted(machine) == ["a"]
    assert reinitialised(machine) == {"b": 1}


def test_in_the_clear_a_commit_is_believed() -> None:
    machine, task = Machine("ab"), train("ab")
    machine.attend(level="off")
    machine.tell(task)
    machine.finish(task, "ab")
    machine.tell(committed("ab"))
    assert promoted(machine) == ["a", "b"]


# ------------------------------------------------------------------------------------------------ beginning anew


def asked_to_begin_anew(own: int, said: int, *, level: str = "passive", **fields: Any) -> Machine:
    machine = Machine("a", **fields)
    machine.session = replace(machine.session, clients={"a": own}, level=level)
    at = welcome(3, level=level)
    machine.tell(events.DialDue(), replace(at, welcome=replace(at.welcome, reinitialise={"a": said})))
    return machine


def test_a_client_whose_own_record_is_behind_begins_anew() -> None:
    machine = asked_to_begin_anew(2, 3)
    assert reinitialised(machine) == {"a": 3}
    assert machine.session.clients == {"a": 3}


@pytest.mark.parametrize("said", [0, 1, 2])
def test_nobody_else_does_because_a_coordinator_says_so(said: int) -> None:
    machine = asked_to_begin_anew(2, said)
    assert reinitialised(machine) == {}
    assert machine.session.clients == {"a": 2}
    assert "reinitialise_refused" in [each.event for each in machine.asked(effects.Note)]  # type: ignore[attr-defined]


def test_in_the_clear_and_after_a_rollback_that_the_operator_accepts_it_does() -> None:
    assert reinitialised(asked_to_begin_anew(2, 1, level="off")) == {"a": 1}
    assert reinitialised(asked_to_begin_anew(2, 1, accepts_rollback=True)) == {"a": 1}


def test_the_advert_alone_puts_nothing_into_a_sum() -> None:
    machine = Machine("ab")
    machine.attend()
    task = train("ab")
    machine.tell(task)
    machine.answer(ADVERT)
    assert isinstance(machine.session, Session)
    assert machine.session.summed == frozenset()
