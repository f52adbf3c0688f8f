"""From a closed attempt to a durable version: journal the set, open the sum, run the hook, make the version, commit.

What is decided is durable before anybody is told of it. Until the version's own transaction, nothing that was made on
the way counts: after a crash the journaled set is asked for again and gives the same version, bit for bit.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from coordinator.core import effects, events
from coordinator.evaluation.schedule import Evaluations
from coordinator.method_host.hook import Hooked
from coordinator.ports.clock import Clock
from coordinator.ports.figures import Cost, Figures, PrivacyCost
from coordinator.ports.journal import Journal
from coordinator.ports.records import VersionRecord
from coordinator.ports.run import Run
from coordinator.rounds.hook_step import HookStep
from coordinator.rounds.machine import Performers
from coordinator.runtime.durable_writes import DurableWrites
from coordinator.sums.account import PrivacyAccount
from coordinator.sums.round_sum import RoundSum
from coordinator.telemetry.client_history import ClientHistory
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.telemetry.round_cost import RoundCost
from coordinator.telemetry.tracing import Tracing
from coordinator.uploads.client_weights import ClientWeights
from coordinator.uploads.in_flight import UploadsInFlight
from coordinator.versions.catalogue import Catalogue
from coordinator.versions.inclusions import Inclusions
from coordinator.versions.next_version import VersionMaker, mean_statistics
from coordinator.versions.quality import QualityRounds
from coordinator.workers.sessions import SessionTable
from ssd.daemon.logs import event as log_event
from ssd.updates.fold import OpenedFold
from ssd_wire.messages import Committed
from ssd_wire.uploads import Envelope

log = logging.getLogger(__name__)


class VersionWriter:
    """Makes the next version of an opened sum and journals it; keeps nothing between commits."""

    def __init__(
        self,
        *,
        journal: Journal,
        catalogue: Catalogue,
        maker: VersionMaker,
        durability: DurableWrites,
        round_sum: RoundSum,
        account: PrivacyAccount,
        quality: QualityRounds,
        cost: RoundCost,
        tracing: Tracing,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._catalogue = catalogue
        self._tracing = tracing
        self._maker = maker
        self._durability = durability
        self._sum = round_sum
        self._account = account
        self._quality = quality
        self._cost = cost
        self._clock = clock

    async def journal(self, closing: effects.CloseAndCommit) -> None:
        """Make the accepted set durable; from here on the round commits with it or not at all."""
        await self._durability.write(
            lambda: self._journal.close_attempt(closing.round, closing.attempt, closing.accepted)
        )

    async def write(
        self, closing: effects.CloseAndCommit, opened: OpenedFold, hooked: Hooked
    ) -> VersionRecord:
        """The next version, durable; `opened` is used up.

        Args:
            closing: the attempt that is committed.
            opened: the reduced updates of the journaled set, or what the server hook made of them.
            hooked: what else the server hook made.
        """
        spent = await asyncio.to_thread(self._account.cost_of, closing.round)
        with self._tracing.part("make_version"):
            return await self._write(closing, opened, hooked, spent)

    async def _write(
        self,
        closing: effects.CloseAndCommit,
        opened: OpenedFold,
        hooked: Hooked,
        spent: PrivacyCost | None,
    ) -> VersionRecord:
        newest = self._catalogue.newest
        clients, weight = opened.clients, opened.weight
        made = await asyncio.to_thread(
            self._maker.make, opened, newest.full, newest.server_state, self._durability.insister()
        )
        losses = mean_statistics(self._quality.without(made.statistics), clients)
        figures = Figures(
            losses=losses | dict(hooked.metrics),
            quality=await asyncio.to_thread(self._quality.values, made.statistics, closing.round - 1),
            cost=Cost(
                clients=clients,
                weight=weight,
                step_norm=made.step_norm,
                seconds=self._clock.monotonic() - self._cost.opened,
                bytes_up=self._cost.bytes_up,
                bytes_down=self._cost.bytes_down,
            ),
            privacy=spent,
        )
        version = VersionRecord(
            number=closing.round,
            model_digest=made.model_digest,
            full=made.full,
            delta=made.delta,
            server_state={**made.server_state, **hooked.state},
            artefacts=hooked.artefacts,
            round=closing.round,
            attempt=closing.attempt,
            committed_at=self._clock.wall(),
            figures=figures,
        )
        await self._sum.committing(version.model_digest)
        await self._durability.write(lambda: self._journal.commit(version, version.committed_at))
        self._catalogue.add(version)
        return version


class AfterCommit:
    """What follows from a durable version: workers are told, measuring begins, old versions retire.

    Args:
        journal: the journal.
        durability: for its writes.
        catalogue: the versions.
        sessions: the attached workers.
        evaluations: what is measured.
        inclusions: who is in which commit.
        quality: what the newest measuring round found.
        history: of the attempt's clients.
        metrics: of the round.
        weights: what clients weigh.
        retention: how many whole versions and how many deltas are kept.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        durability: DurableWrites,
        catalogue: Catalogue,
        sessions: SessionTable,
        evaluations: Evaluations,
        inclusions: Inclusions,
        quality: QualityRounds,
        history: ClientHistory,
        metrics: CoordinatorMetrics,
        weights: ClientWeights,
        retention: tuple[int, int],
    ) -> None:
        self._journal = journal
        self._durability = durability
        self._catalogue = catalogue
        self._sessions = sessions
        self._evaluations = evaluations
        self._inclusions = inclusions
        self._quality = quality
        self._history = history
        self._metrics = metrics
        self._weights = weights
        self._retention = retention

    def begin(self) -> None:
        """An attempt opens."""
        self._weights.begin()

    def weigh(self, envelope: Envelope) -> None:
        """An upload becomes a part of the attempt's sum."""
        self._weights.add(envelope)

    def announce(self, version: VersionRecord, accepted: tuple[str, ...]) -> None:
        """Tell every worker of the version and which of its clients are in it."""
        self._inclusions.add(version.round, accepted)
        offer, included = self._catalogue.offer(), frozenset(accepted)
        for session in self._sessions:
            own = tuple(sorted(included & session.clients))
            session.send(Committed(round=version.round, version=offer, included=own))

    def measure(self, version: VersionRecord, *, last: bool) -> None:
        """Begin to measure the version, if it is due, and remember what its round measured."""
        self._evaluations.committed(version.number, last=last)
        self._quality.newest = version.figures.quality or self._quality.newest

    def report(
        self, version: VersionRecord, accepted: tuple[str, ...], cost: RoundCost, commit_seconds: float
    ) -> None:
        """Metrics and a log line of the round."""
        spent = version.figures.cost
        assert spent is not None  # a round made the version
        self._metrics.round_committed(
            version=version.number,
            seconds=spent.seconds,
            commit_seconds=commit_seconds,
            overhead_seconds=max(0.0, spent.seconds - cost.slowest),
            figures=version.figures,
            heaviest=self._weights.committed(accepted),
        )
        log_event(
            log,
            logging.INFO,
            "round_committed",
            round=version.round,
            attempt=version.attempt,
            clients=spent.clients,
            seconds=round(spent.seconds, 3),
            digest=version.model_digest[:16],
        )

    async def retire(self) -> None:
        """Remove what retention no longer keeps, and write down what became of the attempt's clients."""
        await self._durability.write(self._retire)
        await write_history(self._history, self._journal, self._durability)

    def _retire(self) -> None:
        full_versions, deltas = self._retention
        self._catalogue.retire(full_versions=full_versions, deltas=deltas, pinned=self._evaluations.wanted)


class Commit:
    """Performs `CloseAndCommit`.

    Args:
        run: the run's present state and its events.
        writer: makes and journals the version.
        after: what follows from it.
        round_sum: of the attempt.
        hook: the step of the method's server hook.
        quality: the layout of updates.
        in_flight: uploads in flight, which come too late from here on.
        cost: of the attempt.
        clock: for durations.
    """

    def __init__(
        self,
        *,
        run: Run,
        writer: VersionWriter,
        after: AfterCommit,
        round_sum: RoundSum,
        hook: HookStep,
        quality: QualityRounds,
        in_flight: UploadsInFlight,
        cost: RoundCost,
        clock: Clock,
    ) -> None:
        self._run = run
        self._writer = writer
        self._after = after
        self._sum = round_sum
        self._hook = hook
        self._quality = quality
        self._in_flight = in_flight
        self._cost = cost
        self._clock = clock
        self._unhooked: OpenedFold | None = None
        """The reduced updates of a journaled set whose server hook failed."""

    def table(self) -> Performers:
        """Effect -> what performs it."""
        return {effects.CloseAndCommit: self._commit}

    async def begin(self) -> None:
        """An attempt opens: what the one before left is forgotten."""
        self._unhooked = None
        await self._hook.reset()
        self._in_flight.forget()
        self._cost.begin(self._clock.monotonic())
        self._after.begin()

    async def collect(self, envelope: Envelope, body: NDArray[np.uint8]) -> None:
        """Keep what an accepted update's clients weigh, and what the server hook may see: one client's, in the clear."""
        self._after.weigh(envelope)
        if not envelope.fold and not envelope.masked:
            (client,) = envelope.names
            await self._hook.collect(client, envelope.weight, body[: self._quality.plain.update_nbytes])

    async def _commit(self, closing: effects.CloseAndCommit) -> None:
        closed = self._clock.monotonic()
        await self._writer.journal(closing)
        self._in_flight.forget()
        opened = self._unhooked or await self._sum.open()
        self._unhooked = opened
        hooked = await self._hook.run(opened)
        if hooked is None:
            return
        self._unhooked = None
        if hooked.delta is not None:
            opened, hooked = replace(opened, delta=hooked.delta), replace(hooked, delta=None)
        version = await self._writer.write(closing, opened, hooked)
        del opened, hooked
        self._after.announce(version, closing.accepted)
        await self._sum.committed()
        self._after.measure(version, last=version.number >= self._run.state.policy.rounds)
        self._after.report(version, closing.accepted, self._cost, self._clock.monotonic() - closed)
        # Before the next round opens: what goes now may be the room it needs.
        await self._hook.reset()
        await self._after.retire()
        await self._run.apply(events.VersionCommitted(now=self._clock.monotonic(), version=version.number))


async def write_history(history: ClientHistory, journal: Journal, durability: DurableWrites) -> None:
    """Write down what became of the attempt's clients; nothing depends on it, so it comes after the outcome."""
    for (round_number, attempt), notes in history.unwritten().items():
        await durability.write(partial(journal.keep_client_history, round_number, attempt, notes))
