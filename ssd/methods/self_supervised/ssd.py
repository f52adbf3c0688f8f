"""SSD: soft separation and distillation (ICCV 2025, arXiv 2508.01251).

Each client minimises L_align + β·L_uniform + γ·L_DSR + δ·L_distill (Eq. 10): its embeddings are pulled gently
towards dimensions of its own, so that clients who never meet still spread over the sphere, and distillation
carries that spread from the projector's output to the representation that is used.

The scaling vector follows the *client*, as in the paper. (The official code hands vectors out by position in the
round's sample, so under partial participation a client's direction changes from round to round; the setting
`assignment` does the same, to measure what that costs.) `losses.dsr.separation = "hard"` with `losses.delta` above 0 is
our reading of the paper's hard separation and distillation.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from ssd.losses.dimension_scaled import DimensionScaling
from ssd.losses.presets import SsdLosses
from ssd.method.protocol import ClientTask
from ssd.methods.self_supervised.base import AlignUniform
from ssd.methods.self_supervised.config import SsdConfig, embedding_dim, resolve
from ssd.scaling import rotated_basis
from ssd.updates.declaration import Json, ScalingDeclaration

NAME = "ssd"
VERSION = 1
BASIS = "basis"


class Ssd(AlignUniform):
    """The method; see the module docstring and `SsdConfig` for its settings."""

    def __init__(self, config: SsdConfig) -> None:
        super().__init__(NAME, VERSION, config)
        self._settings = config

    def _losses(self) -> SsdLosses:
        return self._settings.losses

    def _scaling_declaration(self) -> ScalingDeclaration | None:
        if self._settings.losses.gamma == 0.0:
            return None
        return ScalingDeclaration(
            dimension=embedding_dim(self._settings),
            alpha=self._settings.alpha,
            block=self._settings.block,
            allocation=self._settings.allocation,
            assignment=self._settings.assignment,
        )

    def _artefact_names(self) -> tuple[str, ...]:
        rotated = self._settings.basis == "rotated" and self._settings.losses.gamma != 0.0
        return (BASIS,) if rotated else ()

    def artefacts(self, seed: int) -> Mapping[str, NDArray[np.float32]]:
        """The shared basis; see `Method.artefacts`."""
        return {name: rotated_basis(embedding_dim(self._settings), seed) for name in self._artefact_names()}

    def _scaling(self, task: ClientTask, device: torch.device) -> DimensionScaling | None:
        if self._settings.losses.gamma == 0.0:
            return None
        dimension = embedding_dim(self._settings)
        if task.scaling is None:
            raise ValueError(f"the task of client {task.client_id!r} carries no scaling vector")
        if task.scaling.dimension != dimension:
            raise ValueError(
                f"the scaling vector has {task.scaling.dimension} dimensions, embeddings {dimension}"
            )
        basis = None
        if self._artefact_names():
            if BASIS not in task.artefacts:
                raise ValueError(f"the task carries no artefact {BASIS!r}, only {sorted(task.artefacts)}")
            basis = torch.tensor(task.artefacts[BASIS])
        return DimensionScaling.create(task.scaling, basis, device=device)


def create(config: Mapping[str, Json]) -> Ssd:
    """The method of a configuration.

    Raises:
        SettingsError: listing everything that is wrong with it.

    """
    return Ssd(resolve(SsdConfig, config))
