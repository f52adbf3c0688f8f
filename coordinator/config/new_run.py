"""What a run is created from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.config.derived import noise_plan_of, plan_of
from coordinator.config.sections import CoordinatorConfig, MethodSection, RunSection
from ssd.privacy.noise import NoisePlan
from ssd.updates.declaration import Declaration


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRun:
    """The configuration of a run that does not exist yet, as far as its creation needs it."""

    method: MethodSection
    run: RunSection
    level: str
    """Of secure aggregation, or `off`."""
    private: bool
    """Whether sums are noisy."""
    state_dir: Path
    config: Mapping[str, Any]
    """What the journal keeps of the configuration."""
    noise: Callable[[Declaration], NoisePlan | None]
    """The noise of the run's sums, if the sums of a method with this declaration can hold it and do not overflow.

    Raises `ConfigInvalid` if they cannot."""


def new_run_of(config: CoordinatorConfig) -> NewRun:
    """What a run under this configuration is created from."""
    return NewRun(
        method=config.method,
        run=config.run,
        level=config.secure_aggregation.level,
        private=config.privacy.mechanism != "off",
        state_dir=config.coordinator.state_dir,
        config=config.run_config(),
        noise=lambda declaration: noise_plan_of(plan_of(declaration, config), config),
    )
