"""What of the configuration concerns secure aggregation, in the forms that its parts need."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.config.sections import SecureAggregationSection
from coordinator.core.secure_aggregation.attempt import Rules
from coordinator.core.secure_aggregation.participants import Keys
from ssd.privacy.settings import PrivacySettings
from ssd.secagg.numbers.masked_plan import MaskedSettings
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.policy import AggregatorPolicy
from ssd_wire.messages import Masking


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureSettings:
    """The section of secure aggregation, and what other sections decide about it."""

    section: SecureAggregationSection
    max_client_weight: int
    """The smaller of the caps of this section and of `[limits]`."""
    max_cohort: int
    elastic: bool
    privacy: PrivacySettings | None = None
    """Distributed differential privacy; None: there is none."""

    @property
    def level(self) -> Level:
        """Never `off`."""
        return Level(self.section.level)

    @property
    def masking(self) -> Masking:
        """How a worker that attends shall quantise its updates."""
        own = self.section
        return Masking(ring_bits=own.ring_bits, clip=own.clip, max_client_weight=self.max_client_weight)

    @property
    def numbers(self) -> MaskedSettings:
        """How updates are quantised."""
        return MaskedSettings(
            ring_bits=self.section.ring_bits,
            clip=self.section.clip,
            max_client_weight=self.max_client_weight,
            max_cohort=self.max_cohort,
            dp=self.privacy,
        )

    @property
    def rules(self) -> Rules:
        """How attempts are conducted."""
        return Rules(
            elastic=self.elastic,
            min_participants=self.section.min_participants,
            phase_seconds=self.section.phase_seconds,
            keys=Keys(self.section.keys),
        )

    @property
    def policy(self) -> AggregatorPolicy:
        """What the coordinator insists on."""
        return AggregatorPolicy(
            min_participants=self.section.min_participants,
            min_honest=0 if self.privacy is None else self.privacy.min_honest,
        )
