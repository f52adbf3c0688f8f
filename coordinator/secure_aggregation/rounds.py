"""Secure aggregation in the driver: messages in and out, uploads, and the sum, for one attempt at a time.

The pure part is `coordinator.core.secure_aggregation.attempt`; this module is its shell. Everything here runs between two events
of the driver's loop. Rules it keeps:

- The journal has the accepted set and the state of the opening before a participant is asked for a signature or a
  share, and the shares before they are used.
- A sum that shares were asked for is opened over exactly that set or not at all; only the operator goes on from there.
- Secrets are searched for in a thread, as a liar can make that take seconds; what is found is an event of the loop.
- After a restart an attempt whose set was journaled goes on; any other is abandoned, for its keys belong to it alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.config.secure_settings import SecureSettings
from coordinator.core import effects, events
from coordinator.core.secure_aggregation.attempt import SecureAttempt
from coordinator.core.secure_aggregation.outcomes import Fixed, GivenUp, Lost, Outcome, Persist, Ready, Stuck
from coordinator.core.secure_aggregation.participants import Keys, Standing
from coordinator.core.state import RunState
from coordinator.errors import BlobCorrupt, BlobMissing, ClientFault, Reason
from coordinator.ports.blobs import BlobReader
from coordinator.ports.clock import Clock
from coordinator.ports.journal import Journal
from coordinator.runtime.durable_writes import Durability
from coordinator.secure_aggregation.masked_sum import SecureSum
from coordinator.secure_aggregation.outbox import SecureDelivery
from coordinator.secure_aggregation.participant_registry import check_entry
from coordinator.secure_aggregation.transcripts import Transcripts
from coordinator.secure_aggregation.view import SecureView
from coordinator.store.files.spool import MaskedSpool
from coordinator.store.journal.rules import IN_FLIGHT
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.uploads.in_flight import Upload
from coordinator.versions.quality import QualityRounds
from coordinator.workers.sessions import Session, SessionTable
from ssd.daemon.logs import event as log_event
from ssd.digest import canonical_json
from ssd.secagg.numbers.config_digest import config_digest
from ssd.secagg.numbers.masked_plan import MaskedPlan
from ssd.secagg.numbers.masked_sum import NotConsistent
from ssd.secagg.protocol.errors import (
    Aborted,
    AbortReason,
    MalformedMessage,
    Rejected,
    SecureAggregationStopped,
)
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import AbortNotice, Graph, Message, Offer, encode
from ssd.secagg.server.aggregator import Aggregator
from ssd.secagg.server.opening import Rebuilding
from ssd.trust.participants import Registry, RegistryRefused
from ssd.updates.fold import FoldPlan, OpenedFold
from ssd_wire.uploads import Envelope

log = logging.getLogger(__name__)

COMPLETE_UP_TO = 200
"""Participants beyond which everybody's neighbours are a few on a ring instead of all."""
ROUND_ID_BYTES = 16
MILLION = 1_000_000
WHAT_TO_DO = (
    " No other set of updates may be opened for this version, so this round cannot be tried again. Bring back workers"
    " of the round whose process still runs, then resume; if they are gone for good, begin a new run in another state"
    " directory, with another run.seed (the same would begin with a model that the workers have seen opened), and with"
    " run.warm_start set to an exported encoder to keep what was learnt"
)


@dataclass(kw_only=True, slots=True)
class _Present:
    """One attempt under way."""

    round: int
    number: int
    round_id: bytes
    machine: SecureAttempt
    delivery: SecureDelivery
    sum: SecureSum
    accepted: tuple[str, ...] = ()
    opened: OpenedFold | None = None
    opened_digest: bytes = b""
    """Empty until the sum was opened."""
    honest: int | None = None
    """Participants in the sum that are not assumed corrupt; None before it is opened."""
    phase: str = ""
    since: float = 0.0
    given_up: bool = False
    """Counted already, with the reason of the protocol."""


class SecureRounds:
    """The present attempt at a masked sum, if there is one.

    Args:
        settings: of the run.
        quality: the run's fold plans.
        registry: the participants' registry, read anew for every attempt; None in level passive.
        apply: the driver's way to let an event happen.
        later: the driver's way to do something between two events.
        entropy: random bytes; `os.urandom`.
        state_dir: where masked uploads and transcripts go.
        transcripts: whether they are kept.
        entered: told of round, attempt and phase when a phase begins; "" before the first.
    """

    def __init__(
        self,
        *,
        settings: SecureSettings,
        quality: QualityRounds,
        registry: Callable[[], Registry | None],
        apply: Callable[[events.Event], Awaitable[None]],
        later: Callable[[Callable[[], Awaitable[None]]], None],
        store: Journal,
        durability: Durability,
        sessions: SessionTable,
        clock: Clock,
        metrics: CoordinatorMetrics,
        entropy: Callable[[int], bytes],
        state_dir: Path,
        transcripts: bool,
        entered: Callable[[int, int, str], None] = lambda *_: None,
    ) -> None:
        self._settings = settings
        self._quality = quality
        self._registry = registry
        self._apply = apply
        self._later = later
        self._store = store
        self._durability = durability
        self._sessions = sessions
        self._clock = clock
        self._entered = entered
        self._entropy = entropy
        self._metrics = metrics.secure
        self._spool = MaskedSpool(state_dir / "masked")
        self._transcripts = Transcripts(state_dir / "transcripts") if transcripts else None
        self._plans: dict[int, MaskedPlan] = {}
        self._present: _Present | None = None
        self._present_registry: Registry | None = None
        """That of the present attempt's participants, in level active."""
        self._search: asyncio.Task[None] | None = None
        """For the secrets of the present attempt, while there is one under way."""
        self._journaled: tuple[int, int, int | None] | None = None
        """Round and attempt of the set that was journaled or read last, and its `_Present.honest`."""
        self._ended = b""
        """Round id of the attempt before: what was on its way when it ended is nobody's fault."""

    # ------------------------------------------------------------------------------------------------- plans

    @property
    def level(self) -> Level:
        """Of the run."""
        return self._settings.level

    def plan(self, fold: FoldPlan) -> MaskedPlan:
        """The layout of a masked upload of a round with this fold plan."""
        key = id(fold)
        if key not in self._plans:
            self._plans[key] = MaskedPlan.create(fold, self._settings.numbers)
        return self._plans[key]

    # ---------------------------------------------------------------------------------------------- attempts

    async def recover(self) -> None:
        """Before anything else after a start: finish with transcripts what a crash left unfinished."""
        transcripts = self._transcripts
        if transcripts is not None:
            models = {version.round: version.model_digest for version in self._store.versions()}
            in_flight = [each.round for each in self._store.attempts(1) if each.outcome in IN_FLIGHT]
            due = in_flight[0] if in_flight else None
            await self._durability.write(lambda: transcripts.recover(models, due))

    def begin(self, effect: effects.OpenAttempt, base_digest: str, task_digest: str) -> None:
        """An attempt is durable: give it a round id of its own. Its offer goes out when its workers are known."""
        self._spool.drop_all_but(None)
        round_id = self._entropy(ROUND_ID_BYTES)
        plan = self.plan(self._quality.plan(effect.round))

        def offer(participants: int) -> Offer:
            return Offer(
                round_id=round_id,
                level=self._settings.level,
                model_digest=bytes.fromhex(base_digest),
                config_digest=config_digest(plan.digest, task_digest),
                round=effect.round,
                attempt=effect.attempt,
                participants=participants,
                gamma_ppm=round(self._settings.assumed_corrupt * MILLION),
                delta_ppm=round(self._settings.tolerated_dropout * MILLION),
                graph=Graph.COMPLETE if participants <= COMPLETE_UP_TO else Graph.RING,
                ring_bits=self._settings.ring_bits,
                max_total_weight=plan.max_total_weight,
            )

        machine = SecureAttempt(
            self._settings.rules, effect.cohort, offer, self._aggregator, self._clock.monotonic()
        )
        self._present = self._attempt(effect.round, effect.attempt, round_id, machine)

    def _aggregator(self, offer: Offer, names: Sequence[str]) -> Aggregator:
        try:
            registry = self._registry()
        except (RegistryRefused, OSError) as error:
            raise Aborted(AbortReason.NOT_REGISTERED, f"the registry of participants: {error}") from error
        self._present_registry = registry
        return Aggregator(offer, names, self._settings.policy, registry)

    def _attempt(self, round_number: int, number: int, round_id: bytes, machine: SecureAttempt) -> _Present:
        plan = self.plan(self._quality.plan(round_number))
        return _Present(
            round=round_number,
            number=number,
            round_id=round_id,
            machine=machine,
            delivery=SecureDelivery(round_id, self._sessions),
            sum=SecureSum(plan, round_id, self._spool, self._durability, self._settings.threads),
            since=self._clock.monotonic(),
        )

    async def settle(self, state: RunState) -> None:
        """After every event of the run: look at hosts and time, do what follows, send what is due."""
        present = self._present
        if present is None or state.attempt is None or state.attempt.number != present.number:
            return
        now = self._clock.monotonic()
        standing = Standing(
            hosts=state.hosts,
            failed=state.attempt.failures.keys(),
            goal=state.attempt.goal,
            opened_at=state.attempt.opened_at,
            deadline_at=state.attempt.deadline_at,
        )
        outcomes = [*present.machine.look(standing, now), *present.machine.advance(now)]
        await self._follow(present, outcomes)

    @property
    def awaits_training(self) -> bool:
        """Whether word of trained clients matters now."""
        present = self._present
        return self._settings.keys is Keys.LATE and present is not None and present.machine.aggregator is None

    async def progressed(
        self, session: Session, round_number: int, attempt: int, client: str, step: int, steps: int
    ) -> None:
        """A worker says how far the training of a client is."""
        present = self._present
        if present is None or (present.round, present.number) != (round_number, attempt):
            return
        now = self._clock.monotonic()
        outcomes = present.machine.progressed(session.worker, client, step, steps, now)
        await self._follow(present, [*outcomes, *present.machine.advance(now)])

    async def heard(self, session: Session, round_id: bytes, content: bytes) -> None:
        """A message of a worker.

        Raises:
            ClientFault: reason malformed_message.
        """
        present = self._present
        if round_id == self._ended or (present is not None and present.machine.over):
            return
        if present is None or round_id != present.round_id:
            self._metrics.rejected(AbortReason.UNEXPECTED_MESSAGE)
            return
        try:
            outcomes = present.machine.heard(session.worker, content, self._clock.monotonic())
        except Rejected as error:
            self._metrics.rejected(error.reason)
            log_event(
                log,
                logging.WARNING,
                "secure_message_rejected",
                worker=session.worker,
                reason=error.reason.value,
                detail=error.detail,
            )
            return
        except MalformedMessage as error:
            self._metrics.rejected(error.reason)
            raise ClientFault(Reason.MALFORMED_MESSAGE, error.detail) from error
        await self._follow(present, outcomes)

    async def _follow(self, present: _Present, outcomes: Sequence[Outcome]) -> None:
        now, where = self._clock.monotonic(), {"round": present.round, "attempt": present.number}
        for outcome in outcomes:
            match outcome:
                case Fixed():
                    await self._apply(
                        events.SharersFixed(
                            now=now, clients=outcome.clients, fewest_uploads=outcome.fewest_uploads, **where
                        )
                    )
                case Persist():
                    await self._journal(present)
                case Ready():
                    assert present.machine.aggregator is not None
                    present.honest = present.machine.aggregator.honest
                    await self._journal(present)
                    await self._open(present)
                case Lost():
                    clients = present.machine.participants[outcome.worker]
                    await self._apply(
                        events.ClientFailed(
                            now=now, worker=outcome.worker, clients=clients, reason=outcome.reason, **where
                        )
                    )
                case GivenUp():
                    self._metrics.stopped(outcome.reason)
                    present.given_up = True
                    said = f"{outcome.reason.value}: {outcome.detail}"
                    await self._apply(events.SumAborted(now=now, reason=said, halt=outcome.hopeless, **where))
                case Stuck():
                    await self._stuck(present.round, present.number, outcome.reason, outcome.detail)
        if self._present is present:
            self._note_phase(present, now)
            present.delivery.deliver(present.machine)
            work = present.machine.rebuilding()
            if work is not None:
                if self._search is not None:
                    self._search.cancel()
                self._search = asyncio.create_task(self._rebuild(present, work))

    async def _rebuild(self, present: _Present, work: Rebuilding) -> None:
        """Beside the loop: search to the end, then let the loop know, whatever came of it."""
        error: Exception | None = None
        try:
            while await asyncio.to_thread(work.step):
                pass
        except Exception as raised:  # noqa: BLE001 - a defect, which has to end the loop and not this task alone
            error = raised

        async def take() -> None:
            if error is not None:
                raise error
            if self._present is present:
                now = self._clock.monotonic()
                await self._follow(present, present.machine.rebuilt(work, now))

        self._later(take)

    async def _stuck(self, round_number: int, number: int, reason: AbortReason, detail: str) -> None:
        self._metrics.stopped(reason)
        await self._apply(
            events.UnmaskingStuck(
                now=self._clock.monotonic(),
                round=round_number,
                attempt=number,
                reason=f"{detail}.{WHAT_TO_DO}",
            )
        )

    def _note_phase(self, present: _Present, now: float) -> None:
        aggregator = present.machine.aggregator
        phase = "" if aggregator is None else aggregator.phase.value
        if phase == present.phase:
            return
        if present.phase:
            self._metrics.phase(present.phase, now - present.since)
        present.phase, present.since = phase, now
        self._entered(present.round, present.number, phase)
        self._metrics.participants(
            invited=len(present.machine.participants), uploaded=len(present.machine.uploaders)
        )
        log_event(
            log,
            logging.INFO,
            "secure_phase",
            round=present.round,
            attempt=present.number,
            phase=phase,
            participants=len(present.machine.participants),
        )

    def view(self) -> SecureView:
        """The present attempt, for status displays."""
        machine = None if self._present is None else self._present.machine
        phase, names = ("", []) if machine is None else machine.awaited()
        return SecureView(
            level=self._settings.level.value,
            phase=phase,
            participants=0 if machine is None else len(machine.participants),
            uploaded=0 if machine is None else len(machine.uploaders),
            survivors=0 if machine is None or machine.aggregator is None else len(machine.survivors),
            awaited=tuple(sorted(names)),
        )

    def waiting_for(self) -> str:
        """One sentence for people; empty if nothing is awaited of a participant."""
        if self._present is None:
            return ""
        phase, names = self._present.machine.awaited()
        if not names or phase == "uploading":
            return ""
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        return f"secure aggregation, {phase}: waiting for {shown}"

    @property
    def wakeup(self) -> float | None:
        """When `settle` could do something by time alone."""
        return None if self._present is None else self._present.machine.wakeup

    # ----------------------------------------------------------------------------------------------- uploads

    def check(self, session: Session, envelope: Envelope) -> None:
        """Refuse a masked upload before a byte of its body is taken.

        Raises:
            ClientFault: it is of another try, set or sender than can be added now.
        """
        present = self._present
        if present is None or envelope.secure_round != present.round_id:
            raise ClientFault(Reason.STALE_ATTEMPT, "the masks belong to another try than the present one")
        clients = present.machine.may_upload(session.worker)
        if clients is None:
            raise ClientFault(
                Reason.NOT_A_PARTICIPANT,
                "this worker's keys are not among those that this sum is masked with",
            )
        if envelope.sharers_digest != present.machine.sharers_digest:
            raise ClientFault(Reason.WRONG_SHARERS, "the masks are not those that would cancel in this sum")
        outside = sorted(set(envelope.names) - set(clients))
        if outside:
            raise ClientFault(
                Reason.CLIENT_NOT_INVITED, f"client {outside[0]} was not this worker's when the try began"
            )
        if self._present_registry is not None:
            cap = self._settings.numbers.max_client_weight
            check_entry(self._present_registry, session.worker, envelope.names, cap)
        if not self._settings.elastic and set(envelope.names) != set(clients):
            raise ClientFault(
                Reason.MALFORMED_MESSAGE,
                f"a worker uploads once, with all its {len(clients)} clients of the cohort",
            )

    async def fold(self, upload: Upload) -> None:
        """Keep a verified upload and add it."""
        present = self._present
        assert present is not None  # `check` let it in, and attempts end between events only
        await present.sum.take(upload.worker, upload.body.view())
        present.machine.uploaded(upload.worker)

    # ----------------------------------------------------------------------------------------------- opening

    async def open_sum(self, effect: effects.OpenSum) -> None:
        """The uploads are over: journal the set, then ask for what opens it; or go on where that broke off."""
        present = self._present
        if present is not None and present.opened_digest:
            await self._tell_opened(present)
            return
        if present is None or present.accepted:
            await self.resume(effect.round, effect.attempt, effect.accepted)
            return
        present.accepted = effect.accepted
        await self._follow(present, present.machine.close(self._clock.monotonic()))

    async def _journal(self, present: _Present) -> None:
        aggregator = present.machine.aggregator
        assert aggregator is not None
        kept = canonical_json(
            {
                "participants": {name: list(own) for name, own in present.machine.participants.items()},
                "aggregator": aggregator.state().hex(),
                # Whoever accounts for opened sums counts it from here on, whatever comes of it.
                "opened": present.honest,
            }
        )
        await self._durability.write(
            lambda: self._store.close_attempt(present.round, present.number, present.accepted, kept)
        )
        self._journaled = (present.round, present.number, present.honest)

    async def resume(self, round_number: int, number: int, accepted: Sequence[str]) -> None:
        """Go on with the opening of a journaled set: after a restart, or because the operator resumed."""
        kept = json.loads(self._store.secure_sum(round_number, number))
        self._journaled = (round_number, number, kept.get("opened"))
        try:
            aggregator = Aggregator.restore(
                bytes.fromhex(kept["aggregator"]), self._settings.policy, self._registry()
            )
        except (RegistryRefused, OSError, SecureAggregationStopped) as error:
            self._present = None
            said = f"the journaled set does not fit the registry or the settings of now: {error}"
            await self._stuck(round_number, number, AbortReason.COORDINATOR_RESTARTED, said)
            return
        participants = {name: tuple(own) for name, own in kept["participants"].items()}
        now = self._clock.monotonic()
        machine = SecureAttempt.restored(self._settings.rules, aggregator, participants, now)
        round_id = aggregator.offer.round_id
        self._present = present = self._attempt(round_number, number, round_id, machine)
        present.accepted, present.honest = tuple(accepted), self._journaled[2]
        self._spool.drop_all_but(round_id)
        log_event(
            log, logging.INFO, "secure_sum_resumed", round=round_number, attempt=number,
            survivors=len(machine.survivors),
        )  # fmt: skip
        try:
            await present.sum.reload(machine.survivors)
        except (BlobMissing, BlobCorrupt, OSError) as error:
            await self._stuck(present.round, present.number, AbortReason.COORDINATOR_RESTARTED, str(error))
            return
        await self._follow(present, machine.advance(now))

    async def _open(self, present: _Present) -> None:
        aggregator = present.machine.aggregator
        assert aggregator is not None
        started, survivors = self._clock.monotonic(), len(present.machine.survivors)
        try:
            masks = await asyncio.to_thread(aggregator.unmask)
            opened, digest = await present.sum.open(masks, survivors)
            if opened.clients != len(present.accepted):
                raise NotConsistent(
                    f"{opened.clients} clients, {len(present.accepted)} were said to be in it"
                )
        except NotConsistent as error:
            await self._stuck(
                present.round, present.number, AbortReason.NOT_CONSISTENT, f"the opened sum is none: {error}"
            )
            return
        except Aborted as error:
            await self._stuck(present.round, present.number, error.reason, error.detail)
            return
        present.opened, present.opened_digest = opened, digest
        dropped = present.machine.dropped
        self._metrics.opened(dropped=dropped, seconds=self._clock.monotonic() - started)
        log_event(
            log, logging.INFO, "secure_sum_opened", round=present.round, attempt=present.number,
            participants=survivors, dropped=dropped, seconds=round(self._clock.monotonic() - started, 3),
        )  # fmt: skip
        await self._tell_opened(present)

    async def _tell_opened(self, present: _Present) -> None:
        await self._apply(
            events.SumOpened(now=self._clock.monotonic(), round=present.round, attempt=present.number)
        )

    def take(self) -> OpenedFold:
        """The opened sum, for its one commit."""
        assert self._present is not None
        assert self._present.opened is not None
        opened, self._present.opened = self._present.opened, None
        return opened

    def opened_honest(self, state: RunState) -> int | None:
        """How many participants of a sum that was opened, and is in no version yet, are not assumed corrupt.

        None: every sum that was opened is in a version. There is at most one that is not: an attempt whose shares were
        asked for is never abandoned, and no other one begins beside it.
        """
        if self._present is not None:
            return self._present.honest
        attempt = state.attempt
        if attempt is None or not attempt.closed:
            return None
        if self._journaled is None or self._journaled[:2] != (attempt.round, attempt.number):
            # The whole state of an opening is read for one number of it, and status displays ask at every turn.
            kept = self._store.secure_sum(attempt.round, attempt.number)
            honest = json.loads(kept).get("opened") if kept else None
            self._journaled = (attempt.round, attempt.number, honest)
        return self._journaled[2]

    # --------------------------------------------------------------------------------------------------- end

    async def committing(self, model_digest: str) -> None:
        """The sum is about to be in that version: its transcript is on disk before anything knows of the version."""
        present = self._present
        assert present is not None  # whose sum it is
        aggregator = present.machine.aggregator
        assert aggregator is not None
        aggregator.finish(present.opened_digest, bytes.fromhex(model_digest))
        transcripts = self._transcripts
        if transcripts is not None:
            content = aggregator.transcript
            await self._durability.write(lambda: transcripts.write(present.round, present.round_id, content))

    async def committed(self) -> None:
        """The sum is in a version: tell the participants, keep the transcript, drop the masked uploads."""
        present = self._end()
        if present is None:
            return
        aggregator = present.machine.aggregator
        assert aggregator is not None
        assert aggregator.opened is not None  # `committing` was before
        self._tell(present, aggregator.opened)
        transcripts = self._transcripts
        if transcripts is not None:
            await self._durability.write(lambda: transcripts.keep(present.round, present.round_id))
        self._metrics.participants(invited=0, uploaded=0)
        await asyncio.to_thread(self._spool.drop_all_but, None)

    async def abandoned(self, reason: str) -> None:
        """The attempt came to nothing: its keys and uploads are of no use to anybody."""
        present = self._end()
        if present is None:
            return
        self._tell(present, AbortNotice(reason=AbortReason.ABANDONED.value, detail=reason[:200]))
        if reason.startswith(f"{AbortReason.TOO_FEW_SURVIVORS.value}:") and not present.given_up:
            self._metrics.stopped(AbortReason.TOO_FEW_SURVIVORS)
        self._metrics.participants(invited=0, uploaded=0)
        await asyncio.to_thread(self._spool.drop_all_but, None)

    def _end(self) -> _Present | None:
        present, self._present = self._present, None
        if self._search is not None:
            self._search.cancel()
            self._search = None
        self._ended = b"" if present is None else present.round_id
        return present

    def _tell(self, present: _Present, message: Message) -> None:
        content = encode(message)
        for worker in present.machine.participants:
            session = self._sessions.worker(worker)
            if session is not None:
                present.delivery.send(session, content)

    def open_blob(self, digest: str, worker: str) -> BlobReader | None:
        """A large message that this worker was told to fetch."""
        return None if self._present is None else self._present.delivery.open(digest, worker)
