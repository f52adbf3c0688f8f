"""What one federation is to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = Any
ENCODER = "encoder"


@dataclass(frozen=True, kw_only=True, slots=True)
class FederationPlan:
    """One run of one method, in reproducible mode."""

    title: str
    """How messages name it."""
    folder: Path
    """Absolute; configurations, logs, state directories and the encoder go there."""
    method: str
    """Name in `ssd.method.registry`, or the path of a Python file."""
    config: Mapping[str, Json]
    """`[method.config]`."""
    clients: tuple[str, ...]
    cohort_size: int
    rounds: int
    seed: int
    evaluate_every: int = 0
    """Rounds between two evaluations by a worker that evaluates; 0: none at all."""
    evaluators: tuple[str, ...] = ()
    """Workers with clients that measure versions as well; one without clients needs no mention."""
    full_versions: int = 3
    """Whole models the coordinator keeps."""
    threads: int = 1
    """Of every client's training."""
    overrides: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    """Further settings of the coordinator: table -> key -> value, over those made from the rest."""
    exports: tuple[str, ...] = (ENCODER,)
    """Parts of the model to take out at the end, each as PART.safetensors; none for a method without an encoder."""
    trained_on: str = ""
    """The data set's name for the exported files."""
    stall_seconds: float = 180.0
    """No round, evaluation or worker for so long counts as hanging."""

    @property
    def secure_aggregation(self) -> str:
        """Level of secure aggregation, as the overrides say."""
        return str(self.overrides.get("secure_aggregation", {}).get("level", "off"))
