"""A conditional generator of latent vectors: (noise, label) -> z.

FedGen (arXiv 2105.10056, §3.1) trains one on the server and lends it to the clients. The shape is the official
code's: noise and one-hot label side by side, one hidden layer with BatchNorm and ReLU, one linear layer. Noise is
Gaussian in the paper and uniform on [0, 1) in the code. The generator travels as one flat vector, parameters first,
then BatchNorm's running statistics (see `ssd.models.flat`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ssd.models.allocate import allocated
from ssd.models.flat import FlatModel, entries_of
from ssd.models.initialise import initialise
from ssd.updates.spec import ParameterSpec

GENERATOR = "generator"


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratorConfig:
    """Sizes and noise; the sizes are the official code's for MNIST and EMNIST."""

    noise_dim: int = 32
    hidden_dim: int = 256
    noise: Literal["uniform", "gaussian"] = "uniform"
    """`uniform`: on [0, 1) (official code); `gaussian`: standard normal (paper)."""

    def __post_init__(self) -> None:
        if self.noise_dim < 1 or self.hidden_dim < 1:
            raise ValueError(
                f"noise_dim and hidden_dim must be positive, got {self.noise_dim} and {self.hidden_dim}"
            )

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """[count, noise_dim] float32 noise on the CPU."""
        shape = (count, self.noise_dim)
        if self.noise == "uniform":
            return torch.rand(shape, generator=generator)
        return torch.randn(shape, generator=generator)


class LatentGenerator(nn.Module):
    """([B, noise_dim] noise, [B] labels) -> [B, latent_dim]."""

    def __init__(self, config: GeneratorConfig, *, classes: int, latent_dim: int) -> None:
        super().__init__()
        self.classes = classes
        self.hidden = nn.Linear(config.noise_dim + classes, config.hidden_dim)
        self.normalise = nn.BatchNorm1d(config.hidden_dim)
        self.latent = nn.Linear(config.hidden_dim, latent_dim)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Latent vectors for these labels."""
        given = torch.cat((noise, one_hot(labels, self.classes).to(noise.dtype)), dim=1)
        latent: Tensor = self.latent(torch.relu(self.normalise(self.hidden(given))))
        return latent


def skeleton(config: GeneratorConfig, *, classes: int, latent_dim: int) -> LatentGenerator:
    """A generator on the meta device: shapes and names, no memory."""
    with torch.device("meta"):
        return LatentGenerator(config, classes=classes, latent_dim=latent_dim)


def spec_of(config: GeneratorConfig, *, classes: int, latent_dim: int) -> ParameterSpec:
    """What the positions of the flat vector mean: the parameters, then the running statistics."""
    module = skeleton(config, classes=classes, latent_dim=latent_dim)
    return ParameterSpec.build(entries_of({GENERATOR: module}, "averaged"))


def flat_generator(
    config: GeneratorConfig, *, classes: int, latent_dim: int, device: torch.device | str = "cpu"
) -> FlatModel:
    """A generator whose tensors are views into one flat vector; weights undefined until `load`."""
    module = allocated(skeleton(config, classes=classes, latent_dim=latent_dim))
    return FlatModel({GENERATOR: module}, "averaged", device)


def initial_vector(
    config: GeneratorConfig, *, classes: int, latent_dim: int, seed: int
) -> NDArray[np.float32]:
    """[n] float32 initial weights drawn from `seed`."""
    model = flat_generator(config, classes=classes, latent_dim=latent_dim)
    initialise(model.parts[GENERATOR], torch.Generator().manual_seed(seed))
    return model.vector()
