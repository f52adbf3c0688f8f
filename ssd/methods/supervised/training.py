"""One client's local training on labels: SGD on a method's own loss over its own images.

It keeps the rules of `ssd.methods.self_supervised.training` (a function of options, base, data, seeds, device type and thread count; a fresh
optimiser every round; a batch of one image is left out) and adds:

- Every kind of randomness has a stream of its own, keyed by purpose: image order, augmentation, and one for each thing
  a method draws. Adding a term to a loss shifts none of the others.
- `batches = "fresh"` draws the order anew for every round. With `"stream"` a client goes on where its last committed
  round stopped, as FedGen's official code does: with few steps per round it then sees all of its images before it
  sees one twice.
- A visit has one phase or several; each moves some of the parameters with an optimiser of its own. Parameters that a
  phase does not move are not touched by its weight decay either. BatchNorm statistics follow the images in all phases.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ssd.data.images.source import ImageSource
from ssd.data.preparation import Augmentation, Normalisation, Preparation
from ssd.method.protocol import Progress
from ssd.methods.self_supervised.training import (
    CUDA_CHECK_INTERVAL,
    MomentumSgd,
    Seeds,
    TrainingDiverged,
    TrainingOptions,
    batch_sizes,
    read_ahead,
)
from ssd.methods.supervised.context import Batch, Context, Loss
from ssd.random_stream import RandomStream


@dataclass(frozen=True, kw_only=True, slots=True)
class SupervisedOptions(TrainingOptions):
    """How a client trains; the defaults are the FedAvg paper's (arXiv 1602.05629) simplest."""

    local_epochs: int = 1
    local_steps: int | None = None
    """So many mini-batches instead of `local_epochs`, over as many epochs as that takes."""
    batch_size: int = 32
    drop_last: bool = False
    batches: Literal["fresh", "stream"] = "fresh"
    augment: Augmentation = "none"
    normalise: Normalisation = field(default_factory=Normalisation)
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        TrainingOptions.__post_init__(self)
        if self.local_steps is not None and self.local_steps < 1:
            raise ValueError(f"local_steps must be at least 1, got {self.local_steps}")


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a visit in which one range of the parameters is moved."""

    where: slice
    """Of `FlatModel.trainable`."""
    steps: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """The position of the next batch: its pass over the client's images, and its place within that pass."""

    epoch: int = 0
    batch: int = 0

    def after(self, steps: int, per_epoch: int) -> Cursor:
        """The position `steps` batches later."""
        # A client whose images became fewer may stand behind the last batch: then the next pass begins.
        start = self if self.batch < per_epoch else Cursor(self.epoch + 1, 0)
        passes, batch = divmod(start.batch + steps, per_epoch)
        return Cursor(start.epoch + passes, batch)


def steps_of_visit(count: int, options: SupervisedOptions) -> int:
    """How many mini-batches a client with `count` images trains on; `TooFewImages` for fewer than two."""
    sizes = batch_sizes(count, options)
    return options.local_epochs * len(sizes) if options.local_steps is None else options.local_steps


@dataclass(frozen=True, kw_only=True, slots=True)
class SupervisedTraining:
    """Everything of a client's visit that is not the model or the data."""

    options: SupervisedOptions
    preparation: Preparation
    loss: Callable[[Batch, Context], Loss]
    terms: tuple[str, ...]
    phases: Sequence[Phase]
    lr: float
    cursor: Cursor

    def run(self, context: Context, source: ImageSource, progress: Progress) -> dict[str, float]:
        """Train the context's model in place on `source`.

        Returns:
            `loss_sum`, `<term>_sum` for every term (sums over mini-batches), `correct`, `images` and `batches`.

        Raises:
            TooFewImages: fewer than two images.
            TrainingDiverged: a loss or a parameter is not finite.
            ValueError: the loss does not give the declared terms.
        """
        sizes = batch_sizes(len(source), self.options)
        flat, device = context.flat, context.device
        steps = sum(phase.steps for phase in self.phases)
        interval = 1 if device.type == "cpu" else CUDA_CHECK_INTERVAL
        names = ["loss", *self.terms]
        totals = torch.zeros(len(names) + 1, dtype=torch.float64, device=device)
        augmentation = context.seeds.generator("augment")
        seen = 0
        for module in flat.parts.values():
            module.train()
        ahead, now = itertools.tee(self._batches(context.seeds, len(source), sizes, steps))
        with closing(read_ahead(source, ahead, device)) as loaded:
            for (where, optimiser), indices, images in zip(self._moves(), now, loaded, strict=True):
                labels = context.labels[indices].to(device, non_blocking=True)
                batch = Batch(self.preparation.training(images, augmentation), labels)
                latest = self._step(context, batch, where, optimiser)
                totals += latest
                seen += len(indices)
                context.step += 1
                if context.step % interval == 0 or context.step == steps:
                    self._report(context, steps, dict(zip(names, latest.tolist(), strict=False)), progress)
        flat.clear_gradient()
        if not bool(torch.isfinite(flat.trainable).all()):
            raise TrainingDiverged(self._advice(context, "a parameter is not finite", steps))
        *sums, correct = totals.tolist()
        statistics = {f"{name}_sum": value for name, value in zip(names, sums, strict=True)}
        return statistics | {"correct": correct, "images": float(seen), "batches": float(steps)}

    def _moves(self) -> Iterator[tuple[slice, MomentumSgd]]:
        """For every step, which parameters move and by which optimiser."""
        for phase in self.phases:
            optimiser = MomentumSgd(self.lr, self.options.momentum, self.options.weight_decay)
            yield from itertools.repeat((phase.where, optimiser), phase.steps)

    def _batches(self, seeds: Seeds, count: int, sizes: Sequence[int], steps: int) -> Iterator[list[int]]:
        """The indices of every mini-batch of the visit."""
        cursor = self.cursor.after(0, len(sizes))
        order: list[int] = []
        for step in range(steps):
            if step == 0 or cursor.batch == 0:
                order = self._order(seeds, cursor.epoch, count)
            start = sum(sizes[: cursor.batch])
            yield order[start : start + sizes[cursor.batch]]
            cursor = cursor.after(1, len(sizes))

    def _order(self, seeds: Seeds, epoch: int, count: int) -> list[int]:
        if self.options.batches == "fresh":
            return seeds.order(epoch, count)
        # Passes are counted over the whole run: an order must not depend on the round in which it is used up.
        return RandomStream("batch-stream", seeds.run_seed, seeds.client_id, epoch).permutation(count)

    def _step(self, context: Context, batch: Batch, where: slice, optimiser: MomentumSgd) -> Tensor:
        """One optimiser step; the loss, the terms and the number of correct answers, [2 + terms]."""
        loss = self.loss(batch, context)
        if set(loss.terms) != set(self.terms):
            raise ValueError(
                f"the loss gives the terms {sorted(loss.terms)}, declared are {list(self.terms)}"
            )
        context.flat.clear_gradient()
        torch.autograd.backward(loss.value)
        optimiser.step(context.flat.trainable[where], context.flat.gradient()[where])
        correct = (loss.logits.detach().argmax(dim=1) == batch.labels).sum()
        parts = (loss.value, *(loss.terms[name] for name in self.terms), correct)
        return torch.stack([part.detach().to(torch.float32) for part in parts])

    def _report(self, context: Context, steps: int, values: Mapping[str, float], progress: Progress) -> None:
        if not math.isfinite(values["loss"]):
            raise TrainingDiverged(self._advice(context, f"the loss is {values['loss']}", steps))
        progress(context.step, steps, values)

    def _advice(self, context: Context, what: str, steps: int) -> str:
        return (
            f"training of client {context.task.client_id!r} diverged in round {context.task.round} at step "
            f"{context.step} of {steps}: {what} (learning rate {self.lr:g}); lower the learning rate or the "
            "weights of the loss"
        )
