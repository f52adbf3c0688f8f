"""What a participant agrees to, and what the coordinator of an attempt insists on."""

from __future__ import annotations

from dataclasses import dataclass

from ssd.secagg.protocol.graph import PPM, Level
from ssd.secagg.protocol.messages import MAX_PARTICIPANTS


@dataclass(frozen=True, kw_only=True, slots=True)
class ParticipantPolicy:
    """A participant's own terms; an offer outside them is refused.

    Raises:
        ValueError: terms nothing could fulfil.
    """

    level: Level = Level.ACTIVE
    """The least it takes part in."""
    min_participants: int = 2
    """Of a roster and of a survivor set, itself among them."""
    max_participants: int = MAX_PARTICIPANTS
    min_gamma_ppm: int = 0
    """The least fraction of corrupt participants the threshold must withstand, parts per million."""
    max_delta_ppm: int = 500_000
    """The largest fraction of dropouts it tolerates, parts per million: who picks them makes the sum smaller."""
    ring_bits: frozenset[int] = frozenset({16, 24, 32})
    max_total_weight: int = 1 << 40
    allow_ring: bool = True
    """Whether it takes part on the sparse graph as well."""
    min_honest: int = 0
    """Of a survivor set, so many at least beside those assumed corrupt: as many as the noise was made for."""
    min_set_change: int = 1
    """A survivor set is one signed lately, or differs from it by so many participants: the difference of two sums is a sum
    over those."""
    min_honest_others: int = 0
    """Level `active`: in the smallest sum that a roster allows, so many others at least are honest."""

    def __post_init__(self) -> None:
        if not 2 <= self.min_participants <= self.max_participants <= MAX_PARTICIPANTS:
            raise ValueError(
                f"participants must be 2 to {MAX_PARTICIPANTS}, and the minimum below the maximum"
            )
        if not (0 <= self.min_gamma_ppm < PPM and 0 <= self.max_delta_ppm < PPM):
            raise ValueError("fractions are parts per million, below one")

    def admits(self, level: Level) -> bool:
        """Whether a level protects enough."""
        return level is Level.ACTIVE or self.level is Level.PASSIVE


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTerms:
    """What a participant was told when it joined the run. An offer may not say otherwise.

    Clip, bits of a value and weights of single clients are in the configuration's digest.
    """

    level: Level
    ring_bits: int
    max_total_weight: int
    """Of a whole round."""
    max_participants: int
    """As many as a round has clients: the headroom of sums is made for no more addends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AggregatorPolicy:
    """The coordinator's own terms, beside those of the offer.

    Raises:
        ValueError: fewer than two participants.
    """

    min_participants: int = 2
    """Of a roster and of a survivor set."""
    min_honest: int = 0
    """Of a survivor set, beside those assumed corrupt."""

    def __post_init__(self) -> None:
        if self.min_participants < 2:
            raise ValueError("a sum over fewer than two participants hides nothing")
