"""Opening a masked sum: the set and the state of the opening are journaled first, and exactly that set is opened.

- The journal has the accepted set and the state of the opening before a participant is asked for a signature or a
  share, and the shares before they are used.
- A sum that shares were asked for is opened over exactly that set or not at all; only the operator goes on from there.
- The transcript is on disk before anything knows of the version that the sum made.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

from coordinator.config.secure_settings import SecureSettings
from coordinator.core import effects, events
from coordinator.core.state import RunState
from coordinator.ports.clock import Clock
from coordinator.ports.journal import Journal
from coordinator.ports.run import Run
from coordinator.runtime.durable_writes import DurableWrites
from coordinator.secure_aggregation.offers import make_offer
from coordinator.secure_aggregation.present import PresentAttempt
from coordinator.secure_aggregation.transcripts import Transcripts
from coordinator.store.journal.rules import IN_FLIGHT
from coordinator.telemetry.secure_metrics import SecureMetrics
from ssd.daemon.logs import event as log_event
from ssd.digest import canonical_json
from ssd.secagg.numbers.masked_plan import MaskedPlan
from ssd.secagg.numbers.masked_sum import NotConsistent
from ssd.secagg.protocol.errors import Aborted, AbortReason
from ssd.secagg.protocol.messages import Offer
from ssd.secagg.server.aggregator import Aggregator
from ssd.trust.participants import Registry, RegistryRefused

log = logging.getLogger(__name__)

WHAT_TO_DO = (
    " No other set of updates may be opened for this version, so this round cannot be tried again. Bring back workers"
    " of the round whose process still runs, then resume; if they are gone for good, begin a new run in another state"
    " directory, with another run.seed (the same would begin with a model that the workers have seen opened), and with"
    " run.warm_start set to an exported encoder to keep what was learnt"
)


class SumOpening:
    """Journals and opens masked sums; keeps nothing of an attempt but what the journal last had of one.

    Args:
        run: to let events happen.
        settings: of secure aggregation.
        registry: reads the participants' registry anew for every attempt; None in level passive.
        journal: the journal.
        durability: for its writes.
        transcripts: where they are kept; None: they are not.
        clock: for durations.
        metrics: of secure aggregation.
    """

    def __init__(
        self,
        *,
        run: Run,
        settings: SecureSettings,
        registry: Callable[[], Registry | None],
        journal: Journal,
        durability: DurableWrites,
        transcripts: Transcripts | None,
        clock: Clock,
        metrics: SecureMetrics,
    ) -> None:
        self._run = run
        self._settings = settings
        self.registry = registry
        self._journal = journal
        self._durability = durability
        self._transcripts = transcripts
        self._clock = clock
        self._metrics = metrics
        self._journaled: tuple[int, int, int | None] | None = None
        """Round and attempt of the set that was journaled or read last, and its `PresentAttempt.honest`."""

    def offers(
        self,
        plan: MaskedPlan,
        opening: effects.OpenAttempt,
        round_id: bytes,
        base_digest: str,
        task_digest: str,
    ) -> Callable[[int], Offer]:
        """What makes the offer of an attempt, once it is known how many participants there may be; see `make_offer`."""

        def offer(participants: int) -> Offer:
            known = self._registered()
            return make_offer(
                self._settings, plan, opening, round_id, base_digest, task_digest, participants, known
            )

        return offer

    def _registered(self) -> int:
        """Participants of the registry; 0: there is none, or it cannot be read, which the attempt itself will say."""
        try:
            registry = self.registry()
        except (RegistryRefused, OSError):
            return 0
        return 0 if registry is None else len(registry.participants)

    async def recover(self) -> None:
        """Finish with transcripts, before anything else after a start, what a crash left unfinished."""
        transcripts = self._transcripts
        if transcripts is not None:
            models = {version.round: version.model_digest for version in self._journal.versions()}
            in_flight = [each.round for each in self._journal.attempts(1) if each.outcome in IN_FLIGHT]
            due = in_flight[0] if in_flight else None
            await self._durability.write(lambda: transcripts.recover(models, due))

    async def journal(self, present: PresentAttempt) -> None:
        """Make the accepted set and the state of its opening durable."""
        kept = canonical_json(
            {
                "participants": {name: list(own) for name, own in present.machine.participants.items()},
                "aggregator": present.aggregator.state().hex(),
                # Whoever accounts for opened sums counts it from here on, whatever comes of it.
                "opened": present.honest,
            }
        )
        await self._durability.write(
            lambda: self._journal.close_attempt(present.round, present.number, present.accepted, kept)
        )
        self._journaled = (present.round, present.number, present.honest)

    def restore(
        self, round_number: int, number: int
    ) -> tuple[Aggregator, dict[str, tuple[str, ...]], int | None]:
        """The opening of a journaled set: the protocol's state, participants with their clients, `honest`.

        Raises:
            RegistryRefused, OSError, SecureAggregationStopped: it does not fit the registry or settings of now.
        """
        kept = json.loads(self._journal.secure_sum(round_number, number))
        self._journaled = (round_number, number, kept.get("opened"))
        state = bytes.fromhex(kept["aggregator"])
        aggregator = Aggregator.restore(state, self._settings.policy, self.registry())
        participants = {name: tuple(own) for name, own in kept["participants"].items()}
        return aggregator, participants, self._journaled[2]

    async def open(self, present: PresentAttempt) -> None:
        """Take the masks out, as enough shares are there, and let the run know what came of it."""
        started, survivors = self._clock.monotonic(), len(present.machine.survivors)
        try:
            masks = await asyncio.to_thread(present.aggregator.unmask)
            opened, digest = await present.sum.open(masks, survivors)
            if opened.clients != len(present.accepted):
                raise NotConsistent(
                    f"{opened.clients} clients, {len(present.accepted)} were said to be in it"
                )
        except NotConsistent as error:
            reason, detail = AbortReason.NOT_CONSISTENT, f"the opened sum is none: {error}"
            await self.block(present.round, present.number, reason, detail)
            return
        except Aborted as error:
            await self.block(present.round, present.number, error.reason, error.detail)
            return
        present.opened, present.opened_digest = opened, digest
        dropped = present.machine.dropped
        self._metrics.opened(dropped=dropped, seconds=self._clock.monotonic() - started)
        log_event(
            log,
            logging.INFO,
            "secure_sum_opened",
            round=present.round,
            attempt=present.number,
            participants=survivors,
            dropped=dropped,
            seconds=round(self._clock.monotonic() - started, 3),
        )
        await self.announce(present)

    async def announce(self, present: PresentAttempt) -> None:
        """Let the run know that the sum is open."""
        await self._run.apply(
            events.SumOpened(now=self._clock.monotonic(), round=present.round, attempt=present.number)
        )

    async def block(self, round_number: int, number: int, reason: AbortReason, detail: str) -> None:
        """Let the run know that this sum cannot be opened now, and that no other may take its place."""
        self._metrics.stopped(reason)
        await self._run.apply(
            events.UnmaskingStuck(
                now=self._clock.monotonic(),
                round=round_number,
                attempt=number,
                reason=f"{detail}.{WHAT_TO_DO}",
            )
        )

    def journaled_honest(self, state: RunState) -> int | None:
        """`honest` of the journaled set whose sum is in no version yet; None: there is none, or it was not opened."""
        attempt = state.attempt
        if attempt is None or not attempt.closed:
            return None
        if self._journaled is None or self._journaled[:2] != (attempt.round, attempt.number):
            # The whole state of an opening is read for one number of it, and status displays ask at every turn.
            kept = self._journal.secure_sum(attempt.round, attempt.number)
            honest = json.loads(kept).get("opened") if kept else None
            self._journaled = (attempt.round, attempt.number, honest)
        return self._journaled[2]

    async def write_transcript(self, present: PresentAttempt, model_digest: str) -> None:
        """The sum is about to be in that version: its transcript is on disk before anything knows of the version."""
        present.aggregator.finish(present.opened_digest, bytes.fromhex(model_digest))
        transcripts = self._transcripts
        if transcripts is not None:
            content = present.aggregator.transcript
            await self._durability.write(lambda: transcripts.write(present.round, present.round_id, content))

    async def keep_transcript(self, present: PresentAttempt) -> None:
        """The version is durable: its transcript stays."""
        transcripts = self._transcripts
        if transcripts is not None:
            await self._durability.write(lambda: transcripts.keep(present.round, present.round_id))
