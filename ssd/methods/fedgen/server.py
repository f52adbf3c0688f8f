"""FedGen's server step (arXiv 2105.10056, Algorithm 1, line 13): train the generator against the clients' heads.

A pure function: equal arguments give equal bits on one thread. The generator, Adam's moments and the count of steps
are the whole state; noise and labels of a round come from a seed of that round, so a run that stops and resumes goes
on as if it had not.

A step draws labels y and noise ε, makes z = G(ε, y), and moves the generator down

    teacher(z, y) + diversity weight · exp(−mean(msd(ε) · mad(z)))

with Adam. The official code also has an adversarial student term, whose weight is 0 in every configuration it ships;
it is not offered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssd.losses.diversity import diversity
from ssd.models.flat import FlatModel
from ssd.models.generator import GENERATOR, GeneratorConfig

Array = NDArray[np.float32]
Teacher = Callable[[Tensor, Tensor], Tensor]
"""([B, D] latent vectors, [B] labels) -> a scalar: how badly the clients' heads read these vectors as those labels."""

FIRST, SECOND, STEPS = "first_moment", "second_moment", "steps"
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


class GeneratorDiverged(ArithmeticError):
    """The generator or its loss stopped being finite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratorTraining:
    """How the server trains the generator; the defaults are the official code's."""

    steps: int = 50
    """Adam steps a round."""
    batch_size: int = 32
    weight_decay: float = 1e-2
    """L2, added to the gradient (not decoupled)."""
    diversity: float = 1.0
    """Weight of the diversity term."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 2:
            raise ValueError(
                f"a round needs at least one step on at least two vectors, got {self.steps} on {self.batch_size}"
            )
        if self.weight_decay < 0.0 or self.diversity < 0.0:
            raise ValueError(
                f"weights must not be negative, got weight_decay {self.weight_decay} and diversity {self.diversity}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratorState:
    """What the server keeps from round to round."""

    vector: Array
    """[n] parameters, then running statistics."""
    first: Array
    """[p] Adam's mean gradient."""
    second: Array
    """[p] Adam's mean squared gradient."""
    steps: int
    """Steps taken in the whole run."""

    @classmethod
    def fresh(cls, vector: Array, parameters: int) -> GeneratorState:
        """An untrained generator of `parameters` trainable values."""
        nothing = np.zeros(parameters, np.float32)
        return cls(vector=vector, first=nothing, second=nothing, steps=0)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> GeneratorState:
        """The inverse of `to_arrays`; other names are left alone."""
        vector, first, second = (np.asarray(arrays[name], np.float32) for name in (GENERATOR, FIRST, SECOND))
        return cls(vector=vector, first=first, second=second, steps=int(np.asarray(arrays[STEPS])[0]))

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The state as named arrays, the form in which a server hook keeps it."""
        return {
            GENERATOR: self.vector,
            FIRST: self.first,
            SECOND: self.second,
            STEPS: np.array([self.steps], np.int64),
        }


@dataclass(frozen=True, slots=True)
class GeneratorReport:
    """Means over the steps of one round."""

    teacher: float
    diversity: float


def train_generator(
    model: FlatModel,
    state: GeneratorState,
    teacher: Teacher,
    labels: NDArray[np.float64],
    *,
    noise: GeneratorConfig,
    training: GeneratorTraining,
    lr: float,
    seed: int,
) -> tuple[GeneratorState, GeneratorReport]:
    """One round of generator training on the CPU.

    Args:
        model: room for the generator; its present values do not matter.
        state: where the last round ended.
        teacher: the clients' heads.
        labels: [C] the distribution labels are drawn from; a label with 0 never occurs.
        noise: the noise distribution.
        training: steps, batch size and weights.
        lr: Adam's learning rate in this round.
        seed: of this round's noise and labels.

    Returns:
        The new state, and what the losses were.

    Raises:
        GeneratorDiverged: a parameter or a loss is not finite.

    """
    generator = model.parts[GENERATOR]
    model.load(state.vector)
    generator.train().requires_grad_(True)
    random = torch.Generator().manual_seed(seed)
    shape = (training.steps, training.batch_size)
    drawn = torch.multinomial(
        torch.from_numpy(labels), training.steps * training.batch_size, replacement=True, generator=random
    ).view(shape)
    optimiser = _Adam(model.trainable, state, lr=lr, weight_decay=training.weight_decay)
    totals = torch.zeros(2, dtype=torch.float64)
    for wanted in drawn:
        drawn_noise = noise.draw(training.batch_size, random)
        latents = generator(drawn_noise, wanted)
        taught = teacher(latents, wanted)
        spread = diversity(drawn_noise, latents)
        model.clear_gradient()
        torch.autograd.backward(taught + training.diversity * spread)
        optimiser.step(model.gradient())
        totals += torch.stack((taught.detach(), spread.detach()))
    model.clear_gradient()
    taught_mean, spread_mean = (totals / training.steps).tolist()
    after = optimiser.state(model.vector())
    if not (np.isfinite(after.vector).all() and np.isfinite(taught_mean)):
        raise GeneratorDiverged(
            f"the generator diverged (loss {taught_mean:g}, learning rate {lr:g}); lower generator_lr"
        )
    return after, GeneratorReport(taught_mean, spread_mean)


class _Adam:
    """Adam with L2 decay on one flat vector; the update rule of `torch.optim.Adam`.

    Written out for the reason `ssd.methods.self_supervised.training.MomentumSgd` is, and because its state has to travel as plain arrays.
    """

    def __init__(self, parameters: Tensor, state: GeneratorState, *, lr: float, weight_decay: float) -> None:
        self._parameters = parameters
        self._first = torch.tensor(state.first)
        self._second = torch.tensor(state.second)
        self._steps = state.steps
        self._lr = lr
        self._weight_decay = weight_decay

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        """Move the parameters in place; `gradient` is overwritten."""
        self._steps += 1
        gradient.add_(self._parameters, alpha=self._weight_decay)
        self._first.lerp_(gradient, 1.0 - BETA_1)
        self._second.mul_(BETA_2).addcmul_(gradient, gradient, value=1.0 - BETA_2)
        correction_1, correction_2 = 1.0 - BETA_1**self._steps, 1.0 - BETA_2**self._steps
        scale = self._second.sqrt().div_(correction_2**0.5).add_(EPSILON)
        self._parameters.addcdiv_(self._first, scale, value=-self._lr / correction_1)

    def state(self, vector: Array) -> GeneratorState:
        """The state to keep, with the generator's new values."""
        return GeneratorState(
            vector=vector, first=self._first.numpy(), second=self._second.numpy(), steps=self._steps
        )
