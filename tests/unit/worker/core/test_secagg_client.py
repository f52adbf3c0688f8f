"""The session machine under secure aggregation: what goes to the participant when, and what never leaves the host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from secure.secure_session import (
    ADVERT,
    ID,
    OTHER,
    SURVIVORS,
    Machine,
    delivery,
    heard,
    joined,
    offer,
    ready,
    train,
    uploading,
    version,
)
from ssd.secagg.protocol.errors import AbortReason
from ssd.secagg.protocol.messages import (
    AbortNotice,
    Opened,
    Refusal,
    encode,
)
from ssd_wire import messages
from ssd_wire.messages import BlobRef, SecureMessage
from ssd_wire.uploads import UploadFate
from worker.core import effects, events
from worker.core.finished import Finished


def test_without_an_offer_nothing_is_uploaded() -> None:
    machine, task = Machine("ab"), train("ab")
    machine.attend()
    machine.tell(task)
    machine.finish(task, "ab")
    machine.tell(messages.Flush(round=1, attempt=1))
    assert not machine.asked(effects.StartUpload)
    assert len(machine.session.held) == 2


def test_the_masked_upload_waits_for_the_masks_and_for_every_client() -> None:
    machine, task = joined("ab")
    machine.finish(task, "ab")
    assert not machine.asked(effects.StartUpload)
    machine.tell(heard(delivery()))
    out = machine.answer(None, ready=True)
    (upload,) = machine.asked(effects.StartUpload)
    assert isinstance(upload, effects.StartUpload)
    assert upload.secure_round == ID
    assert [each.key.client for each in upload.updates] == ["a", "b"]
    assert out


def test_a_flush_uploads_what_is_finished_and_the_rest_stays_out_of_the_attempt() -> None:
    machine, task = ready("ab")
    machine.finish(task, "a")
    assert not machine.asked(effects.StartUpload)
    machine.tell(messages.Flush(round=1, attempt=1))
    (upload,) = machine.asked(effects.StartUpload)
    assert isinstance(upload, effects.StartUpload)
    machine.judge(UploadFate.ACCEPTED)
    late = Finished(key=task.key("b"), weight=1, seconds=1.0, body_size=8, chunk_digests=b"")
    machine.tell(events.ClientTrained(finished=late))
    assert not machine.asked(effects.StartUpload)
    assert task.key("b") in machine.session.held


def test_a_rejected_masked_upload_is_neither_taken_apart_nor_are_its_updates_dropped() -> None:
    machine, _ = uploading()
    machine.judge(UploadFate.REJECTED, "over_bound")
    assert not machine.asked(effects.StartUpload)
    assert not machine.asked(effects.DropUpdates)
    assert not machine.asked(effects.AcknowledgeSecure)
    assert len(machine.session.held) == 2


def test_a_secure_message_in_a_run_without_secure_aggregation_is_not_looked_at() -> None:
    machine, task = Machine(), train("ab")
    machine.attend(level="off")
    blob = BlobRef(digest="b" * 64, size=9)
    machine.tell(
        task,
        SecureMessage(round_id=ID, content=encode(offer(task))),
        SecureMessage(round_id=ID, blob=blob),
    )
    assert not machine.asked(effects.JoinSecure)
    assert not machine.asked(effects.FetchSecure)
    assert not machine.said()


def test_a_message_in_a_blob_is_fetched_and_one_within_is_taken_at_once() -> None:
    machine, task = Machine(), train("ab")
    machine.attend()
    blob = BlobRef(digest="b" * 64, size=9)
    machine.tell(task, SecureMessage(round_id=ID, blob=blob))
    assert machine.asked(effects.FetchSecure) == [effects.FetchSecure(round_id=ID, blob=blob)]
    machine.tell(SecureMessage(round_id=ID, content=encode(offer(task))))
    assert machine.asked(effects.JoinSecure)


@pytest.mark.parametrize(
    "content", [b"\0", b"\1\xff", encode(SURVIVORS)[:-1], encode(SURVIVORS) + b"\0"], ids=range(4)
)
def test_bytes_that_are_no_message_end_the_round(content: bytes) -> None:
    machine, _ = ready()
    machine.tell(SecureMessage(round_id=ID, content=content))
    (refusal,) = machine.said()
    assert isinstance(refusal, Refusal)
    assert refusal.reason == AbortReason.MALFORMED_MESSAGE
    assert machine.asked(effects.CloseSecure)


def test_a_broken_upload_goes_on_with_the_same_clients_under_the_same_masks() -> None:
    machine, task = uploading()
    machine.redial()
    assert machine.session.secure is not None
    machine.tell(task)
    (again,) = machine.asked(effects.StartUpload)
    assert isinstance(again, effects.StartUpload)
    assert again.secure_round == ID
    assert [each.key.client for each in again.updates] == ["a", "b"]


def test_a_broken_upload_does_not_go_on_with_fewer_clients() -> None:
    machine, _ = uploading()
    machine.redial()
    machine.tell(train("a"))
    assert not machine.asked(effects.StartUpload)


def test_an_attempt_more_drops_the_keys_and_takes_a_new_offer() -> None:
    machine, task = uploading()
    machine.judge(UploadFate.ACCEPTED)
    again = replace(task, attempt=2)
    machine.tell(again)
    assert machine.asked(effects.CloseSecure) == [effects.CloseSecure(round_id=ID)]
    assert machine.session.secure is None
    assert not machine.asked(effects.StartUpload)
    machine.tell(heard(offer(again, OTHER), OTHER))
    (join,) = machine.asked(effects.JoinSecure)
    assert isinstance(join, effects.JoinSecure)
    assert join.round_id == OTHER
    machine.answer(None, ready=True, round_id=OTHER)
    (upload,) = machine.asked(effects.StartUpload)
    assert isinstance(upload, effects.StartUpload)
    assert upload.secure_round == OTHER


def test_a_new_offer_within_an_attempt_stops_the_upload_and_drops_the_keys_before_it() -> None:
    machine, task = uploading()
    machine.tell(heard(offer(task, OTHER), OTHER))
    kinds = [type(effect) for effect in machine.out]
    assert kinds.index(effects.CloseSecure) < kinds.index(effects.JoinSecure)
    assert effects.StopUpload in kinds
    assert effects.StartUpload not in kinds
    machine.answer(None, ready=True, round_id=OTHER)
    (upload,) = machine.asked(effects.StartUpload)
    assert isinstance(upload, effects.StartUpload)
    assert upload.secure_round == OTHER


@pytest.mark.parametrize(
    "end",
    [
        messages.Cancel(round=1, attempt=1, reason="test"),
        messages.Committed(round=1, version=version(1), included=("a",)),
        messages.Drain(reason="test", reconnect_after_seconds=1),
        messages.RunChanged(reason="test", finished=True),
        events.StopRequested(),
        heard(AbortNotice(reason="deadline", detail="")),
        heard(Opened(opened_digest=bytes(32), survivors=2, next_model_digest=bytes(32))),
    ],
    ids=lambda end: type(getattr(end, "message", end)).__name__,
)
def test_every_end_of_an_attempt_drops_the_keys_and_stops_the_upload(end: events.Event) -> None:
    machine, _ = uploading()
    machine.tell(end)
    assert effects.CloseSecure(round_id=ID) in machine.out
    assert effects.StopUpload() in machine.out
    assert len(machine.asked(effects.CloseSecure)) == 1


def test_word_of_the_opening_counts_once_even_if_the_commit_comes_first() -> None:
    machine, _ = uploading()
    machine.judge(UploadFate.ACCEPTED)
    machine.tell(messages.Committed(round=1, version=version(1), included=("a", "b")))
    assert machine.asked(effects.CloseSecure)
    opened = Opened(opened_digest=bytes(32), survivors=2, next_model_digest=bytes(32))
    machine.tell(heard(opened), heard(opened))
    assert [note.event for note in machine.asked(effects.Note)].count("secure_round_opened") == 1  # type: ignore[attr-defined]
    machine.tell(heard(opened, OTHER))
    assert not [note for note in machine.asked(effects.Note) if note.event == "secure_round_opened"]  # type: ignore[attr-defined]


def test_a_lost_link_keeps_the_keys() -> None:
    machine, _ = ready()
    machine.redial()
    assert not machine.asked(effects.CloseSecure)
    assert machine.session.secure is not None
    assert machine.session.secure.ready


def test_an_offer_that_could_not_be_taken_up_is_taken_when_it_comes_again() -> None:
    machine, task = joined()
    machine.tell(events.SecureNotBegun(round_id=ID))
    machine.redial()
    machine.tell(task, heard(offer(task)))
    assert machine.asked(effects.JoinSecure)


def test_a_repeated_offer_goes_to_the_participant_it_has() -> None:
    machine, task = ready()
    machine.tell(heard(offer(task)))
    assert not machine.asked(effects.JoinSecure)
    assert machine.asked(effects.TellSecure)


def test_a_survivor_set_that_overtakes_the_verdict_waits_for_it() -> None:
    machine, _ = uploading()
    machine.tell(heard(SURVIVORS))
    assert not machine.asked(effects.TellSecure)
    machine.judge(UploadFate.ACCEPTED)
    kinds = [type(effect) for effect in machine.out]
    assert kinds.index(effects.AcknowledgeSecure) < kinds.index(effects.TellSecure)


def test_a_survivor_set_is_looked_at_even_if_the_verdict_was_lost_with_the_link() -> None:
    machine, _ = uploading()
    machine.tell(heard(SURVIVORS))
    machine.redial()
    assert not machine.asked(effects.TellSecure)
    machine.tell(heard(SURVIVORS))
    assert machine.asked(effects.TellSecure)


def test_a_verdict_of_duplicate_is_an_acknowledgement() -> None:
    machine, _ = uploading()
    machine.judge(UploadFate.DISCARDED, "duplicate")
    assert machine.asked(effects.AcknowledgeSecure)


def test_an_answer_while_offline_is_not_sent_and_not_lost() -> None:
    machine, task = joined()
    machine.tell(events.LinkLost(reason="silent"))
    machine.answer(ADVERT)
    assert not machine.said()
    machine.attend()
    machine.tell(task, heard(offer(task)))
    # The participant is asked again and says the same again.
    assert machine.asked(effects.TellSecure)
