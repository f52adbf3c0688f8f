"""The sections that a running federation reads, and what follows from several of them."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.config.sections import (
    EvaluationSection,
    LimitsSection,
    RetentionSection,
    RunSection,
    WireSection,
)
from coordinator.config.secure_settings import SecureSettings
from ssd.privacy.settings import PrivacySettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a run's parts need of the configuration."""

    run: RunSection
    wire: WireSection
    limits: LimitsSection
    retention: RetentionSection
    evaluation: EvaluationSection
    update_encoding: str
    """Of updates as they leave a client; not always that of `wire`."""
    expected_clients: int
    """How many clients scaling vectors are laid out for."""
    data_endpoints: tuple[str, ...] = ()
    secure: SecureSettings | None = None
    """None: updates come in the clear."""
    privacy: PrivacySettings | None = None
    """None: sums are not noisy."""
