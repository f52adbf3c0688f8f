"""The session machine under secure aggregation: what goes to the participant when, and what never leaves the host."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ssd.privacy.settings import NoisePlace, PrivacySettings
from ssd.secagg.protocol.errors import AbortReason
from ssd.secagg.protocol.messages import (
    AbortNotice,
    Advert,
    Graph,
    Level,
    Message,
    Offer,
    Opened,
    Refusal,
    Roster,
    SetProof,
    ShareDelivery,
    Survivors,
    decode,
    encode,
)
from ssd_wire import messages
from ssd_wire.messages import BlobRef, Masking, ModelVersion, SecureMessage, TaskClient, Train
from ssd_wire.uploads import UploadFate, Verdict
from worker.core import effects, events
from worker.core.effects import Effect
from worker.core.finished import Finished
from worker.core.session import step
from worker.core.state import Link, SecureTerms, Session

RUN = "run-1"
ID, OTHER = b"1" * 16, b"2" * 16


def version(number: int) -> ModelVersion:
    return ModelVersion(number=number, model_digest=f"{number:064x}", full=BlobRef(digest="f" * 64, size=4))


def welcome(number: int = 0, *, level: str = "passive", run: str = RUN, held: int = 0) -> events.Welcomed:
    masking = None if level == "off" else Masking(ring_bits=24, clip=1.0, max_client_weight=4)
    return events.Welcomed(
        welcome=messages.Welcome(
            protocol=1,
            session="s",
            run_id=run,
            declaration=BlobRef(digest="d" * 64, size=1),
            declaration_digest="d" * 64,
            held_fates=(messages.HeldFate.KEEP,) * held,
            reinitialise={},
            data_endpoints=(),
            heartbeat_seconds=5.0,
            update_encoding="float32",
            delta_encoding="float16",
            max_cohort=10,
            max_client_weight=10,
            max_upload_bytes=100,
            version=version(number),
            level=level,
            masking=masking,
        )
    )


def train(clients: str, number: int = 0, attempt: int = 1) -> Train:
    said = Train(
        round=number + 1,
        attempt=attempt,
        base=version(number),
        task_digest="",
        run_seed=1,
        rounds=10,
        values={},
        threads=1,
        clients=tuple(TaskClient(client=client) for client in clients),
    )
    return replace(said, task_digest=said.computed_digest(RUN, "d" * 64))


def offer(task: Train, round_id: bytes = ID) -> Offer:
    return Offer(
        round_id=round_id,
        level=Level.PASSIVE,
        model_digest=bytes.fromhex(task.base.model_digest),
        config_digest=bytes(32),
        round=task.round,
        attempt=task.attempt,
        participants=10,
        gamma_ppm=100_000,
        delta_ppm=200_000,
        graph=Graph.COMPLETE,
        ring_bits=24,
        max_total_weight=100,
    )


def heard(message: Message, round_id: bytes = ID) -> events.SecureHeard:
    return events.SecureHeard(round_id=round_id, message=message)


def delivery() -> ShareDelivery:
    return ShareDelivery(recipient="w", sharers=("v", "w"), entries=())


SURVIVORS = Survivors(sharers_digest=bytes(32), names=("v", "w"))


class Machine:
    """A session and everything it asked for."""

    def __init__(self, clients: str = "ab", **fields: object) -> None:
        self.session = Session(clients=dict.fromkeys(clients, 0), run_id=RUN, **fields)  # type: ignore[arg-type]
        self.out: list[Effect] = []

    def tell(self, *news: events.Event) -> list[Effect]:
        self.out = []
        for event in news:
            self.session, out = step(self.session, event)
            self.out.extend(out)
        return self.out

    def attend(self, number: int = 0, *, level: str = "passive") -> list[Effect]:
        return self.tell(events.DialDue(), welcome(number, level=level, held=len(self.session.held)))

    def redial(self, reason: str = "silent") -> list[Effect]:
        return self.tell(events.LinkLost(reason=reason)) + self.attend()

    def asked(self, kind: type) -> list[Effect]:
        return [effect for effect in self.out if type(effect) is kind]

    def finish(self, task: Train, clients: str) -> None:
        self.tell(events.Prepared(key=task.key(""), number=task.base.number))
        for client in clients:
            done = Finished(key=task.key(client), weight=1, seconds=1.0, body_size=8, chunk_digests=b"")
            self.tell(events.ClientTrained(finished=done))

    def said(self) -> list[Message]:
        """What it told the coordinator about secure aggregation."""
        return [
            decode(effect.message.content)
            for effect in self.out
            if isinstance(effect, effects.Send) and isinstance(effect.message, SecureMessage)
        ]

    def answer(self, message: Message | None, *, ready: bool = False, round_id: bytes = ID) -> list[Effect]:
        content = b"" if message is None else encode(message)
        return self.tell(events.SecureAnswered(round_id=round_id, answer=content, ready=ready))

    def judge(self, fate: UploadFate, reason: str = "") -> list[Effect]:
        assert self.session.work is not None
        assert self.session.work.upload is not None
        number = self.session.work.upload.number
        return self.tell(events.UploadEnded(upload=number, verdict=Verdict(fate=fate, reason=reason)))


ADVERT = Advert(
    name="w",
    channel_key=bytes(32),
    mask_key=bytes(32),
    nonce=bytes(32),
    commitment=bytes(32),
    signature=b"",
)


def joined(clients: str = "ab", **fields: object) -> tuple[Machine, Train]:
    """A machine that has an offer."""
    machine, task = Machine(clients, **fields), train(clients)
    machine.attend()
    machine.tell(task, heard(offer(task)))
    return machine, task


def ready(clients: str = "ab") -> tuple[Machine, Train]:
    """A machine whose masks are fixed, and whose clients train."""
    machine, task = joined(clients)
    machine.answer(ADVERT)
    machine.tell(heard(Roster(adverts=())))
    machine.tell(heard(delivery()))
    machine.answer(None, ready=True)
    return machine, task


def uploading(clients: str = "ab") -> tuple[Machine, Train]:
    """A machine whose masked upload is under way."""
    machine, task = ready(clients)
    machine.finish(task, clients)
    return machine, task


# ------------------------------------------------------------------------------------------------- which runs


@pytest.mark.parametrize(("least", "offered"), [("passive", "off"), ("active", "off"), ("active", "passive")])
def test_a_run_below_the_own_level_is_left_for_good_with_what_to_change(least: str, offered: str) -> None:
    machine = Machine(terms=SecureTerms(least=least, cannot_sign=""))
    machine.attend(level=offered)
    (declined,) = machine.asked(effects.Decline)
    assert isinstance(declined, effects.Decline)
    assert "[secure_aggregation] level" in declined.detail
    assert machine.session.stopped
    assert not machine.asked(effects.OpenSession)
    assert not machine.asked(effects.Redial)


@pytest.mark.parametrize("offered", ["off", "passive", "active"])
def test_a_worker_that_asks_for_nothing_takes_part_in_every_run(offered: str) -> None:
    machine = Machine(terms=SecureTerms(least="off", cannot_sign=""))
    machine.attend(level=offered)
    assert machine.session.link is Link.ATTENDING
    assert machine.session.level == offered


def private(place: str, noise: float = 1.0) -> PrivacySettings | None:
    if place == "off":
        return None
    return PrivacySettings(place=NoisePlace(place), clip_norm=1.0, noise_multiplier=noise, delta=1e-5)


def told_of_privacy(terms: SecureTerms, *offers: PrivacySettings | None) -> Machine:
    """A machine that attends runs with these terms one after the other, always the same run."""
    machine = Machine(terms=terms)
    for offer_ in offers:
        news = welcome()
        machine.tell(events.DialDue(), replace(news, welcome=replace(news.welcome, privacy=offer_)))
        if not machine.session.stopped and offer_ is not offers[-1]:
            machine.tell(events.LinkLost(reason="silent"))
    return machine


@pytest.mark.parametrize(
    ("least", "noise", "offered", "said"),
    [
        ("central", 0.0, private("off"), "[privacy] mechanism"),
        ("distributed", 0.0, private("central"), "[privacy] mechanism"),
        ("off", 0.5, private("off"), "min_noise_multiplier"),
        ("off", 0.5, private("central", 0.49), "min_noise_multiplier"),
    ],
)
def test_a_run_with_less_noise_than_asked_for_is_left_for_good(
    least: str, noise: float, offered: PrivacySettings | None, said: str
) -> None:
    machine = told_of_privacy(SecureTerms(privacy=least, min_noise_multiplier=noise), offered)
    (declined,) = machine.asked(effects.Decline)
    assert isinstance(declined, effects.Decline)
    assert said in declined.detail
    assert machine.session.stopped


@pytest.mark.parametrize("offered", ["off", "central", "distributed"])
def test_a_worker_that_asks_for_no_noise_takes_what_the_run_has(offered: str) -> None:
    machine = told_of_privacy(SecureTerms(), private(offered))
    assert machine.session.link is Link.ATTENDING
    assert machine.session.privacy == private(offered)


def test_the_terms_of_differential_privacy_do_not_change_within_a_run() -> None:
    assert not told_of_privacy(SecureTerms(), private("central"), private("central")).session.stopped
    for changed in (private("off"), private("central", 0.9)):
        machine = told_of_privacy(SecureTerms(), private("central"), changed)
        (declined,) = machine.asked(effects.Decline)
        assert isinstance(declined, effects.Decline)
        assert "within a run" in declined.detail


def test_the_numbers_of_masked_sums_do_not_change_within_a_run() -> None:
    told = welcome()
    masking = told.welcome.masking
    assert masking is not None
    for changes in ({}, {"ring_bits": 32}, {"clip": 2.0}, {"max_client_weight": 5}):
        machine = Machine()
        machine.attend()
        machine.tell(events.LinkLost(reason="silent"))
        now = replace(told.welcome, masking=replace(masking, **changes))
        machine.tell(events.DialDue(), replace(told, welcome=now))
        assert machine.session.stopped is bool(changes)
        assert bool(machine.asked(effects.Decline)) is bool(changes)


def test_who_cannot_sign_leaves_an_active_run_with_what_to_do() -> None:
    machine = Machine(terms=SecureTerms(cannot_sign="run `ssd-worker identity init`"))
    machine.attend(level="active")
    (declined,) = machine.asked(effects.Decline)
    assert isinstance(declined, effects.Decline)
    assert "run `ssd-worker identity init`" in declined.detail


def test_who_hosts_nobody_needs_no_signing_key() -> None:
    machine = Machine("", terms=SecureTerms(cannot_sign="run `ssd-worker identity init`"))
    machine.attend(level="active")
    assert machine.session.link is Link.ATTENDING


def test_a_run_whose_level_sinks_is_left() -> None:
    machine = Machine()
    machine.attend(level="passive")
    machine.tell(events.LinkLost(reason="silent"))
    machine.attend(level="off")
    assert machine.asked(effects.Decline)
    assert machine.session.stopped


def test_the_level_of_a_run_is_remembered_before_it_is_worked_for() -> None:
    machine = Machine()
    machine.attend(level="passive")
    assert machine.asked(effects.RememberLevel) == [effects.RememberLevel(level="passive")]
    machine.redial()
    assert not machine.asked(effects.RememberLevel)


def test_a_run_that_was_left_and_comes_back_with_less_is_left_for_good() -> None:
    machine = Machine()
    machine.tell(events.DialDue())
    stored = events.StoredRun(run_id="run-2", level="passive")
    machine.tell(replace(welcome(level="off", run="run-2"), stored=stored))
    assert machine.asked(effects.Decline)
    assert machine.session.stopped


# ------------------------------------------------------------------------------------------------ nothing clear


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


# ---------------------------------------------------------------------------------------------- broken links


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


# ------------------------------------------------------------------------------------------------- survivor set


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


# ----------------------------------------------------------------------------------------------------- hostile


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


class History(RuleBasedStateMachine):
    """Random histories: whatever a coordinator says in whatever order, the promises hold."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine("ab")
        self.number = 0
        self.attempt = 1
        self.offered = [bytes(16)]
        self.joined: set[bytes] = set()
        self.masked: dict[bytes, set[str]] = {}
        self.bad: list[str] = []
        self.tell(events.DialDue(), welcome(0))

    def tell(self, *news: events.Event) -> None:
        for effect in self.machine.tell(*news):
            match effect:
                case effects.StartUpload():
                    names = {each.key.client for each in effect.updates}
                    if not effect.secure_round:
                        self.bad.append("an upload in the clear")
                    if self.masked.setdefault(effect.secure_round, names) != names:
                        self.bad.append("other clients under the same masks")
                case effects.JoinSecure() if effect.round_id in self.joined:
                    # As the participant does: it never makes keys for a round id again.
                    seen = AbortReason.ROUND_SEEN
                    self.tell(events.SecureRefused(round_id=effect.round_id, reason=seen, detail=""))
                case effects.JoinSecure():
                    self.joined.add(effect.round_id)
                case _:
                    pass

    def task(self) -> Train:
        return train("ab", self.number, self.attempt)

    @rule(fresh=st.booleans())
    def trains(self, fresh: bool) -> None:
        self.attempt += fresh
        self.tell(self.task())

    @rule(back=st.sampled_from([0, 0, 0, 1, 2]))
    def offers(self, back: int) -> None:
        if not back:
            self.offered.append(len(self.offered).to_bytes(16, "big"))
        which = self.offered[max(0, len(self.offered) - 1 - back)]
        self.tell(heard(offer(self.task(), which), which))

    @rule(
        back=st.sampled_from([0, 0, 1]),
        message=st.sampled_from(
            [Roster(adverts=()), delivery(), SURVIVORS, AbortNotice(reason="deadline", detail=""), ADVERT]
        ),
    )
    def says(self, back: int, message: Message) -> None:
        self.tell(heard(message, self.offered[max(0, len(self.offered) - 1 - back)]))

    @rule(is_ready=st.booleans())
    def answers(self, is_ready: bool) -> None:
        secure = self.machine.session.secure
        if secure is not None and not secure.over:
            which = secure.round_id
            self.tell(events.SecureAnswered(round_id=which, answer=encode(ADVERT), ready=is_ready))

    @rule()
    def prepared(self) -> None:
        self.tell(events.Prepared(key=self.task().key(""), number=self.number))

    @rule()
    def trained(self) -> None:
        job = self.machine.session.job
        if job is None or job.key is None:
            return
        if job.stopping:
            self.tell(events.TrainingStopped())
            return
        done = Finished(key=job.key, weight=1, seconds=1.0, body_size=8, chunk_digests=b"")
        self.tell(events.ClientTrained(finished=done))

    @rule(fate=st.sampled_from(list(UploadFate)), reason=st.sampled_from(["", "duplicate", "over_norm"]))
    def judged(self, fate: UploadFate, reason: str) -> None:
        work = self.machine.session.work
        if work is not None and work.upload is not None:
            verdict = Verdict(fate=fate, reason=reason)
            self.tell(events.UploadEnded(upload=work.upload.number, verdict=verdict))

    @rule()
    def flushed(self) -> None:
        self.tell(messages.Flush(round=self.number + 1, attempt=self.attempt))

    @rule()
    def link_lost(self) -> None:
        self.tell(events.LinkLost(reason="silent"), events.DialDue())
        held = len(self.machine.session.hello_held)
        self.tell(welcome(self.number, held=held))

    @rule()
    def committed(self) -> None:
        self.number += 1
        self.attempt = 1
        event = messages.Committed(round=self.number, version=version(self.number), included=("a", "b"))
        self.tell(event)

    @invariant()
    def promises(self) -> None:
        assert not self.bad
        session = self.machine.session
        secure, work = session.secure, session.work
        if secure is not None:
            assert work is not None
            assert (secure.round, secure.attempt) == (work.train.round, work.train.attempt)
        if work is not None and work.upload is not None and work.upload.active:
            assert secure is not None
            assert not secure.over


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


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
