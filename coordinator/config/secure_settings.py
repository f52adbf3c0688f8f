"""What of the configuration concerns secure aggregation, in the forms that its parts need."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.secure_aggregation.attempt import Rules
from coordinator.core.secure_aggregation.participants import Keys
from ssd.privacy.settings import PrivacySettings
from ssd.secagg.numbers.masked_plan import MaskedSettings
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.policy import AggregatorPolicy
from ssd_wire.messages import Masking


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureSettings:
    """What of the configuration concerns secure aggregation."""

    level: Level
    ring_bits: int
    clip: float
    max_client_weight: int
    max_cohort: int
    min_participants: int
    assumed_corrupt: float
    tolerated_dropout: float
    phase_seconds: float
    threads: int
    elastic: bool
    keys: Keys = Keys.EARLY
    privacy: PrivacySettings | None = None
    """Distributed differential privacy; None: there is none."""

    @property
    def masking(self) -> Masking:
        """How a worker that attends shall quantise its updates."""
        return Masking(
            ring_bits=self.ring_bits,
            clip=self.clip,
            max_client_weight=self.max_client_weight,
        )

    @property
    def numbers(self) -> MaskedSettings:
        """How updates are quantised."""
        return MaskedSettings(
            ring_bits=self.ring_bits,
            clip=self.clip,
            max_client_weight=self.max_client_weight,
            max_cohort=self.max_cohort,
            dp=self.privacy,
        )

    @property
    def rules(self) -> Rules:
        """How attempts are conducted."""
        return Rules(
            elastic=self.elastic,
            min_participants=self.min_participants,
            phase_seconds=self.phase_seconds,
            keys=self.keys,
        )

    @property
    def policy(self) -> AggregatorPolicy:
        """What the coordinator insists on."""
        return AggregatorPolicy(
            min_participants=self.min_participants,
            min_honest=0 if self.privacy is None else self.privacy.min_honest,
        )
