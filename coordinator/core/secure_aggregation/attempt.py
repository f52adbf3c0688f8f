"""One attempt at a masked sum: which messages go to whom, and when a phase is over. Pure, beside the round machine.

    (hosts) offer -> adverts -> roster -> shares -> deliveries -> [uploads] -> survivors [-> signatures -> proof]
    -> reveals -> masks to take out

What a message may say is the business of `ssd.secagg.server.aggregator`; this module knows workers, clients and time.
Rules it keeps:

- The participants are fixed when the offer goes out (`coordinator.core.secure_aggregation.participants`): workers that host clients of the
  cohort.
- A worker that went away and came back gets what it has not answered once more, byte for byte; one whose keys are
  gone says so and is a dropout of this attempt.
- Reproducible mode waits for everybody and gives the attempt up as soon as somebody cannot upload any more. Elastic
  mode goes on without those that are late, as long as the thresholds allow.
- Secrets are searched for by the caller, who may take a thread for it (`rebuilding`, `rebuilt`).
- Nothing is due to anybody that depends on a state which `SecureAttempt.state` does not yet show to be journaled: the
  caller persists what an outcome asks for before it looks at `due` again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from coordinator.core.secure_aggregation.outcomes import (
    HOPELESS,
    AttemptGivenUp,
    OpeningBlocked,
    Outcome,
    ParticipantLost,
    ParticipantsFixed,
    Persist,
    ReadyToOpen,
)
from coordinator.core.secure_aggregation.participants import CohortStatus, Keys, ParticipantSelection
from ssd.secagg.protocol.errors import Aborted, AbortReason, Rejected
from ssd.secagg.protocol.messages import (
    Advert,
    Message,
    Offer,
    Refusal,
    Reveal,
    SetSignature,
    ShareBundle,
    ShareDelivery,
    decode,
    encode,
)
from ssd.secagg.server.aggregator import Aggregator
from ssd.secagg.server.members import Phase as AggregatorPhase
from ssd.secagg.server.opening import Rebuilding


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """How attempts of this run are conducted."""

    elastic: bool
    min_participants: int
    phase_seconds: float
    """Elastic: how long the key exchange and the signatures wait for those that are late."""
    keys: Keys = Keys.EARLY


MakeOffer = Callable[[int], Offer]
"""The offer for so many participants."""
MakeAggregator = Callable[[Offer, Sequence[str]], Aggregator]


class SecureAttempt:
    """The state of one attempt.

    Args:
        rules: of the run.
        cohort: the attempt's clients.
        make_offer: called once, when the participants are known.
        make_aggregator: likewise.
        now: monotonic seconds.
    """

    def __init__(
        self,
        rules: Rules,
        cohort: Sequence[str],
        make_offer: MakeOffer,
        make_aggregator: MakeAggregator,
        now: float,
    ) -> None:
        self._rules = rules
        self._gathering = ParticipantSelection(
            cohort=frozenset(cohort), keys=rules.keys, elastic=rules.elastic, fewest=rules.min_participants
        )
        self._standing = CohortStatus(hosts={})
        self._looked_at = now
        self._patience = rules.phase_seconds
        """How long a phase of the key exchange waits."""
        self._make_offer = make_offer
        self._make_aggregator = make_aggregator
        self._since = now
        self.participants: dict[str, tuple[str, ...]] = {}
        """Worker -> its clients of the cohort; empty until the offer goes out."""
        self.aggregator: Aggregator | None = None
        self.over = False
        self._answered: dict[type, set[str]] = {
            Advert: set(),
            ShareBundle: set(),
            SetSignature: set(),
            Reveal: set(),
        }
        self._uploaded: set[str] = set()
        self._refused: dict[str, Refusal] = {}
        self._deliveries: dict[str, ShareDelivery] = {}
        self._encoded: dict[str, bytes] = {}
        self._asked = False
        """Whether somebody may have been asked to reveal."""

    @classmethod
    def restored(
        cls, rules: Rules, aggregator: Aggregator, participants: Mapping[str, tuple[str, ...]], now: float
    ) -> SecureAttempt:
        """An attempt whose survivor set was journaled."""

        def refuse(*_: object) -> Offer:
            raise AssertionError("the offer went out before the restart")

        attempt = cls(rules, (), refuse, lambda *_: aggregator, now)
        attempt.aggregator = aggregator
        attempt.participants = dict(participants)
        attempt._uploaded = set(attempt.survivors)
        attempt._asked = aggregator.phase is not AggregatorPhase.SIGNING
        return attempt

    # ----------------------------------------------------------------------------------------------- inputs

    def look(self, standing: CohortStatus, now: float) -> list[Outcome]:
        """Who hosts which client, or what is awaited of them, may have changed (or is said for the first time)."""
        before, self._standing, self._looked_at = self._standing, standing, now
        if self.over:
            return []
        moved = standing.hosts is not before.hosts
        if self.aggregator is not None:
            return self._moved(standing.hosts) if moved else []
        if self._rules.keys is Keys.EARLY and not moved:
            return []
        found = self._gathering.participants(standing, now)
        return [] if found is None else self._begin(found, now)

    def progressed(self, worker: str, client: str, step: int, steps: int, now: float) -> list[Outcome]:
        """A worker says how far the training of one of its clients is."""
        if self.over or self.aggregator is not None or self._standing.hosts.get(client) != worker:
            return []
        self._gathering.trained(client, worker, step, steps)
        return self.look(self._standing, now)

    def _begin(self, found: Mapping[str, tuple[str, ...]], now: float) -> list[Outcome]:
        if len(found) < self._rules.min_participants:
            detail = (
                f"the cohort's clients are at {len(found)} worker{'s' * (len(found) != 1)}, a sum takes at least"
                f" {self._rules.min_participants}: one participant alone would be laid open"
            )
            return self._give_up(AbortReason.TOO_FEW_ADVERTS, detail, hopeless=not self._rules.elastic)
        self.participants = dict(found)
        if self._rules.keys is Keys.LATE and self._standing.deadline_at is not None:
            # Two phases, then uploads: one that is silent must not use up the time of the others.
            self._patience = min(self._patience, max(0.0, self._standing.deadline_at - now) / 4)
        offer = self._make_offer(len(found))
        try:
            self.aggregator = self._make_aggregator(offer, tuple(self.participants))
        except Aborted as error:
            return self._give_up(error.reason, error.detail, hopeless=error.reason in HOPELESS)
        self._since = now
        return []

    def receive(self, worker: str, content: bytes, now: float) -> list[Outcome]:
        """A message of a participant.

        Raises:
            Rejected: it is not taken, and why; the attempt stands as it was.
            MalformedMessage: it is none.
        """
        aggregator = self.aggregator
        if self.over or aggregator is None or worker not in self.participants:
            raise Rejected(AbortReason.UNKNOWN_SENDER, "no participant of this attempt")
        message = decode(content)
        if isinstance(message, Refusal):
            return self._refuse(worker, message, now)
        try:
            self._take(aggregator, worker, message)
        except Rejected as error:
            if not error.expelled:
                raise
            why = Refusal.of(error.reason, "it broke the protocol")
            return self._refuse(worker, why, now, told=False)
        except Aborted as error:
            return self._give_up(error.reason, error.detail)
        self._answered[type(message)].add(worker)
        return self.advance(now)

    def rebuilding(self) -> Rebuilding | None:
        """The search for secrets that is due; see `Aggregator.rebuilding`."""
        return None if self.over or self.aggregator is None else self.aggregator.rebuilding()

    def rebuilt(self, done: Rebuilding, now: float) -> list[Outcome]:
        """A search came to its end."""
        assert self.aggregator is not None
        self.aggregator.rebuilt(done)
        return self.advance(now)

    def uploaded(self, worker: str) -> None:
        """A worker's masked upload is kept and in the sum."""
        assert self.aggregator is not None
        self.aggregator.uploaded(worker)
        self._uploaded.add(worker)

    def close(self, now: float) -> list[Outcome]:
        """The uploads are over: fix the survivors."""
        assert self.aggregator is not None
        try:
            self.aggregator.close_uploads()
        except Aborted as error:
            return self._give_up(error.reason, error.detail)
        self._since = now
        self._asked = self.aggregator.phase is not AggregatorPhase.SIGNING
        return [Persist(), *self.advance(now)]

    def advance(self, now: float) -> list[Outcome]:
        """Close every phase that is over at `now`."""
        out: list[Outcome] = []
        while not self.over and self.aggregator is not None:
            before = self.aggregator.phase
            try:
                out += self._step(self.aggregator, now)
            except Aborted as error:
                out += self._give_up(error.reason, error.detail)
            if self.aggregator.phase is before:
                break
            self._since = now
        return out

    def _step(self, aggregator: Aggregator, now: float) -> list[Outcome]:
        late = self._rules.elastic and now >= self._since + self._waits(aggregator.phase)
        due = aggregator.complete() or late
        match aggregator.phase:
            case AggregatorPhase.OFFERED if due:
                aggregator.close_adverts()
            case AggregatorPhase.ROSTERED if due:
                self._deliveries = aggregator.close_shares()
                clients = [c for worker in self._deliveries for c in self.participants[worker]]
                return [ParticipantsFixed(clients=tuple(sorted(clients)), fewest_uploads=aggregator.least)]
            case AggregatorPhase.SIGNING if aggregator.may_close() or due:
                # Raises Aborted if they are too few.
                aggregator.close_signatures()
                self._asked = True
                return [Persist()]
            case AggregatorPhase.REVEALING if aggregator.may_close():
                self.over = True
                return [ReadyToOpen()]
            case AggregatorPhase.REVEALING if aggregator.complete() and not aggregator.searching:
                return self._stuck(aggregator)
        return []

    # --------------------------------------------------------------------------------------------- messages

    def due(self, worker: str) -> list[str]:
        """What this worker has to hear now, oldest first, by name (`content`); an answered message is due no more."""
        aggregator = self.aggregator
        if self.over or aggregator is None or worker not in self.participants or worker in self._refused:
            return []
        answered = self._answered
        match aggregator.phase:
            case AggregatorPhase.OFFERED if worker not in answered[Advert]:
                return ["offer"]
            case AggregatorPhase.ROSTERED if worker in answered[Advert] - answered[ShareBundle]:
                return ["roster"]
            case AggregatorPhase.UPLOADING if worker in self._deliveries and worker not in self._uploaded:
                return ["delivery"]
            case AggregatorPhase.SIGNING if worker in self._uploaded - answered[SetSignature]:
                return ["survivors"]
            case AggregatorPhase.REVEALING if worker in self._uploaded - answered[Reveal]:
                if aggregator.proof is None:
                    return ["survivors"]
                return ["proof"] if worker in answered[SetSignature] else ["survivors", "proof"]
        return []

    def content(self, name: str, worker: str) -> bytes:
        """The encoded message of that name for that worker: the same bytes whenever it is asked for."""
        aggregator = self.aggregator
        assert aggregator is not None
        if name == "delivery":
            return encode(self._deliveries[worker])
        if name not in self._encoded:
            message = {
                "offer": aggregator.offer,
                "roster": aggregator.roster,
                "survivors": aggregator.survivors,
                "proof": aggregator.proof,
            }[name]
            assert message is not None  # it was said to be due
            self._encoded[name] = encode(message)
        return self._encoded[name]

    def may_upload(self, worker: str) -> tuple[str, ...] | None:
        """The clients a worker may have in its masked upload; None if it may not upload now."""
        aggregator = self.aggregator
        if self.over or aggregator is None or aggregator.phase is not AggregatorPhase.UPLOADING:
            return None
        if worker not in self._deliveries or worker in self._refused:
            return None
        return self.participants[worker]

    @property
    def sharers_digest(self) -> bytes:
        """What masked uploads are bound to; only while they are awaited."""
        assert self.aggregator is not None
        return self.aggregator.sharers_digest

    @property
    def survivors(self) -> tuple[str, ...]:
        """Whose uploads make the sum; empty before the uploads are over."""
        survivors = None if self.aggregator is None else self.aggregator.survivors
        return () if survivors is None else survivors.names

    @property
    def dropped(self) -> int:
        """Participants whose masks have to be rebuilt."""
        sharers = None if self.aggregator is None else self.aggregator.sharers
        return 0 if sharers is None else len(sharers.names) - len(self.survivors)

    @property
    def uploaders(self) -> frozenset[str]:
        """Workers whose masked upload is in the sum."""
        return frozenset(self._uploaded)

    def awaited(self) -> tuple[str, list[str]]:
        """The phase and whom it waits for; no names if it waits for nobody, or for uploads."""
        aggregator = self.aggregator
        if aggregator is None or self.over:
            return "", []
        return aggregator.phase.value, [worker for worker in self.participants if self.due(worker)]

    @property
    def wakeup(self) -> float | None:
        """When `advance` could do something by time alone."""
        if self.over or not self._rules.elastic:
            return None
        if self.aggregator is None:
            return self._standing.keys_by if self._looked_at < (self._standing.keys_by or 0.0) else None
        timed = (AggregatorPhase.OFFERED, AggregatorPhase.ROSTERED, AggregatorPhase.SIGNING)
        phase = self.aggregator.phase
        return self._since + self._waits(phase) if phase in timed else None

    def _waits(self, phase: AggregatorPhase) -> float:
        return self._rules.phase_seconds if phase is AggregatorPhase.SIGNING else self._patience

    # ------------------------------------------------------------------------------------------------ parts

    def _moved(self, hosts: Mapping[str, str]) -> list[Outcome]:
        """A client that another worker hosts now can only be trained under other keys."""
        if self._rules.elastic:
            return []
        for worker, clients in self.participants.items():
            elsewhere = [c for c in clients if hosts.get(c, worker) != worker]
            if elsewhere and worker not in self._uploaded:
                return self._give_up(
                    AbortReason.PARTICIPANT_LOST, f"client {elsewhere[0]} moved to another worker"
                )
        return []

    @staticmethod
    def _take(aggregator: Aggregator, worker: str, message: Message) -> None:
        match message:
            case Advert():
                aggregator.advert(worker, message)
            case ShareBundle():
                aggregator.shares(worker, message)
            case SetSignature():
                aggregator.signature(worker, message)
            case Reveal():
                aggregator.reveal(worker, message)
            case _:
                raise Rejected(AbortReason.UNEXPECTED_MESSAGE, "only a coordinator says that")

    def _refuse(self, worker: str, said: Refusal, now: float, *, told: bool = True) -> list[Outcome]:
        """The worker takes no part any more, because it said so or broke the protocol."""
        assert self.aggregator is not None
        if worker in self._refused:
            return []
        self._refused[worker] = said
        if told:
            self.aggregator.lost(worker)
        if worker in self._uploaded:
            return self.advance(now)
        reason = AbortReason(said.reason) if said.reason in set(AbortReason) else AbortReason.PARTICIPANT_LOST
        if self._rules.elastic:
            return [ParticipantLost(worker=worker, reason=reason.value), *self.advance(now)]
        return self._give_up(
            reason, f"worker {worker} refused: {said.detail[:300]}", hopeless=reason in HOPELESS
        )

    def _give_up(self, reason: AbortReason, detail: str, *, hopeless: bool = False) -> list[Outcome]:
        self.over = True
        if self._asked:
            return [OpeningBlocked(reason=reason, detail=f"{reason.value}: {detail}")]
        return [AttemptGivenUp(reason=reason, detail=detail, hopeless=hopeless)]

    def _stuck(self, aggregator: Aggregator) -> list[Outcome]:
        self.over = True
        if not aggregator.short:
            owners = ", ".join(aggregator.unverified[:8])
            said = f"no choice of the revealed shares fits what was advertised by {owners}: its owner or holders lied"
            return [OpeningBlocked(reason=AbortReason.UNVERIFIABLE_SECRET, detail=said)]
        away = [worker for worker in sorted(self._uploaded) if worker in self._refused]
        said = f"the keys of {', '.join(away)} are gone, and the others' shares do not suffice"
        return [OpeningBlocked(reason=AbortReason.TOO_FEW_REVEALS, detail=said)]
