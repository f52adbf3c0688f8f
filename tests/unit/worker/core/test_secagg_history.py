"""The session machine under secure aggregation, through random histories."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from secure.secure_session import ADVERT, SURVIVORS, Machine, delivery, heard, offer, train, version, welcome
from ssd.secagg.protocol.errors import AbortReason
from ssd.secagg.protocol.messages import (
    AbortNotice,
    Message,
    Roster,
    encode,
)
from ssd_wire import messages
from ssd_wire.messages import Train
from ssd_wire.uploads import UploadFate, Verdict
from worker.core import effects, events
from worker.core.finished import Finished


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
