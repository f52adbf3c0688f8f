"""From a closed attempt to a durable version: journal the set, make the version, commit both together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from coordinator.method_host.hook import Hooked
from coordinator.ports.clock import Clock
from coordinator.ports.journal import Journal
from coordinator.ports.records import VersionRecord
from coordinator.runtime.durable_writes import Durability
from coordinator.versions.catalogue import Catalogue
from coordinator.versions.next_version import VersionMaker, mean_statistics
from coordinator.versions.quality import QualityRounds
from ssd.updates.fold import OpenedFold


@dataclass(slots=True)
class Tally:
    """What an attempt cost, for its record."""

    opened: float
    """Monotonic seconds."""
    bytes_up: int = 0
    bytes_down: int = 0
    training_seconds: list[float] = field(default_factory=list)

    @property
    def slowest(self) -> float:
        """The slowest client's own work, seconds."""
        return max(self.training_seconds, default=0.0)


class Committer:
    """Makes commits; keeps nothing between them."""

    def __init__(
        self,
        *,
        store: Journal,
        catalogue: Catalogue,
        maker: VersionMaker,
        durability: Durability,
        clock: Clock,
        quality: QualityRounds,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._maker = maker
        self._durability = durability
        self._clock = clock
        self._quality = quality

    async def journal(self, round_number: int, attempt: int, accepted: Sequence[str]) -> None:
        """Make the accepted set durable; from here on the round commits with it or not at all."""
        await self._durability.write(lambda: self._store.close_attempt(round_number, attempt, accepted))

    async def commit(
        self,
        round_number: int,
        attempt: int,
        opened: OpenedFold,
        hooked: Hooked | None,
        tally: Tally,
        spent: Mapping[str, float],
        before: Callable[[str], Awaitable[None]] | None = None,
    ) -> VersionRecord:
        """Make and journal the next version; `opened` is used up.

        Args:
            round_number: of the attempt that is committed.
            attempt: its number.
            opened: the reduced updates of the journaled set, or what the server hook made of them.
            hooked: what else the server hook made, if there is one.
            tally: what the attempt cost.
            spent: what it costs in privacy.
            before: what has to be on disk before the commit is; it is told the model's digest.
        """
        newest = self._catalogue.newest
        clients, weight = opened.clients, opened.weight
        made = await asyncio.to_thread(
            self._maker.make, opened, newest.full, newest.server_state, self._durability.insister()
        )
        statistics = mean_statistics(self._quality.without(made.statistics), clients)
        statistics |= await asyncio.to_thread(self._quality.values, made.statistics, round_number - 1)
        statistics |= {
            "clients": float(clients),
            "weight": float(weight),
            "step_norm": made.step_norm,
            "seconds": self._clock.monotonic() - tally.opened,
            "bytes_up": float(tally.bytes_up),
            "bytes_down": float(tally.bytes_down),
        }
        if hooked is not None:
            statistics |= hooked.metrics
        statistics |= spent
        version = VersionRecord(
            number=round_number,
            model_digest=made.model_digest,
            full=made.full,
            delta=made.delta,
            server_state={**made.server_state, **(hooked.state if hooked else {})},
            artefacts=hooked.artefacts if hooked else (),
            round=round_number,
            attempt=attempt,
            committed_at=self._clock.wall(),
            statistics=statistics,
        )
        if before is not None:
            await before(version.model_digest)
        await self._durability.write(lambda: self._store.commit(version, version.committed_at))
        self._catalogue.add(version)
        return version
