"""What people may see of a run, in one place: RPC, HTTP and terminal translate it and decide nothing.

Everything here only reads. What is slow says so; the rest is cheap enough for a page that asks every two seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from coordinator.core.state import RunState
from coordinator.evaluation.records import EvaluationRecords
from coordinator.inspection.clients import ClientView, client_view
from coordinator.inspection.cohort_progress import cohort_counts
from coordinator.inspection.provenance import Provenance, provenance
from coordinator.inspection.rounds import RoundView, round_view
from coordinator.inspection.views import StatusView
from coordinator.ports.clock import Clock
from coordinator.ports.journal import Journal
from coordinator.ports.records import RunRecord
from coordinator.ports.run import Run
from coordinator.runtime.durable_writes import DurableWrites
from coordinator.sums.account import PrivacyAccount
from coordinator.sums.round_sum import RoundSum
from coordinator.telemetry.recent import RecentStatus
from coordinator.versions.catalogue import Catalogue
from coordinator.versions.inclusions import Inclusions
from coordinator.versions.quality import QualityRounds
from coordinator.workers.sessions import SessionTable
from ssd.privacy.settings import PrivacySettings
from ssd.updates.declaration import Declaration


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """What does not change about a run while the coordinator is up."""

    record: RunRecord
    declaration: Declaration
    privacy: PrivacySettings | None
    """The settings of differential privacy; None: sums are not noisy."""
    started: float
    """Monotonic seconds at which the coordinator started."""


class Reports:
    """Views of one run for people.

    Args:
        run: its present state.
        facts: what does not change.
        catalogue: its versions.
        journal: for lists; reading it may be slow.
        sessions: the attached workers.
        recent: who left, who dropped out and why.
        inclusions: which clients the commits included.
        evaluations: what was measured of which version.
        quality: what the newest measuring round found.
        round_sum: how far its masks are.
        account: what it costs in privacy.
        durability: for what the medium last said.
    """

    def __init__(
        self,
        *,
        run: Run,
        facts: RunFacts,
        catalogue: Catalogue,
        journal: Journal,
        sessions: SessionTable,
        recent: RecentStatus,
        inclusions: Inclusions,
        evaluations: EvaluationRecords,
        quality: QualityRounds,
        account: PrivacyAccount,
        round_sum: RoundSum,
        durability: DurableWrites,
    ) -> None:
        self._run = run
        self.facts = facts
        self.catalogue = catalogue
        self.journal = journal
        self.sessions = sessions
        self.recent = recent
        self.inclusions = inclusions
        self._evaluations = evaluations
        self._quality = quality
        self._account = account
        self._sum = round_sum
        self._durability = durability

    @property
    def state(self) -> RunState:
        """The run's present state."""
        return self._run.state

    @property
    def evaluations(self) -> Mapping[int, Mapping[str, float]]:
        """Version -> what was measured of it."""
        return self._evaluations.by_version

    def status(self, now: float) -> StatusView:
        """The state, at `now` monotonic seconds."""
        state = self._run.state
        attempt = state.attempt
        cohort: dict[str, int] = {}
        if attempt is not None:
            cohort = {
                "invited": len(attempt.cohort),
                "accepted": len(attempt.accepted),
                "failed": sum(1 for client in attempt.failures if attempt.wants(client)),
            }
        version, values = self._evaluations.newest
        awaited, sentence = state.waiting_for()
        account = self._account.now()
        told = self.catalogue.newest.figures
        # An epsilon that the account has lost must not look as if it held: all that the version says of it goes.
        told = replace(told, quality=self._quality.newest, privacy=account.beside or told.privacy)
        return StatusView(
            run_id=self.facts.record.run_id,
            method=self.facts.declaration.method,
            mode=state.policy.mode.value,
            phase=state.phase.value,
            waiting_for=(
                self._durability.trouble
                or sentence
                or self._sum.waiting_for
                or self.recent.stuck(state.round, state.policy.deadline_seconds)
            ),
            version=self.catalogue.offer(),
            round=attempt.round if attempt else 0,
            attempt=attempt.number if attempt else 0,
            rounds=state.policy.rounds,
            cohort=cohort,
            goal=attempt.goal if attempt else 0,
            opened_at=attempt.opened_at if attempt else None,
            deadline_at=attempt.deadline_at if attempt else None,
            paused=state.paused,
            draining=state.draining,
            awaited=awaited,
            workers=self.sessions.views(now),
            registered_clients=len(state.clients),
            connected_clients=len(state.connected()),
            revoked_clients=len(state.revoked),
            evaluation=values,
            evaluated_version=version,
            figures=told,
            uptime_seconds=now - self.facts.started,
            privacy=account.statement,
            masks=self._sum.view,
        )

    def progress(self) -> Mapping[str, int]:
        """How many clients of the present attempt are where. Looks at each of them."""
        return cohort_counts(self.state, self.recent)

    def client(self, client: str, clock: Clock) -> ClientView:
        """A registered client, as it stands now."""
        offset = clock.wall() - clock.monotonic()
        return client_view(client, self.state, self.sessions, self.recent, self.inclusions, offset)

    def rounds(self, limit: int, *, names: bool = False) -> list[RoundView]:
        """The newest attempts, newest first; `names`: of the accepted clients, too. Reads the journal: may be slow."""
        found = self.journal.attempts(limit) if names else self.journal.attempt_counts(limit)
        return [round_view(each, self.catalogue.record(each.round)) for each in found]

    async def provenance(self, number: int) -> Provenance:
        """How version `number`, which must exist, came to be. Reads the journal in a thread."""
        record = self.catalogue.record(number)
        assert record is not None
        state = self._run.state
        return await asyncio.to_thread(
            provenance,
            self.journal,
            number,
            mode=state.policy.mode.value,
            rounds=state.policy.rounds,
            registered_clients=len(state.clients),
            secure_aggregation=self._sum.level,
            privacy=self._account.describe(number, record.figures.privacy),
        )
