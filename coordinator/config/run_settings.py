"""The settings of a running federation, in one frozen record."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.config.secure_settings import SecureSettings
from ssd.privacy.settings import PrivacySettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the driver needs of the configuration."""

    update_encoding: str
    delta_encoding: str
    max_cohort: int
    max_client_weight: int
    expected_clients: int
    seed: int
    threads: int
    heartbeat_seconds: float
    full_versions: int
    deltas: int
    evaluation_every: int
    evaluation_wait_seconds: float
    stop_when_finished: bool
    min_free_bytes: int = 0
    staging_bytes_per_worker: int | None = None
    data_endpoints: tuple[str, ...] = ()
    secure: SecureSettings | None = None
    """None: updates come in the clear."""
    transcripts: bool = True
    privacy: PrivacySettings | None = None
    """None: sums are not noisy."""
