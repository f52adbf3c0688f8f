"""One client's local training: SGD on the SSD objective over its own images.

Rules it keeps:

- The result is a function of (options, base vector, data, scaling, seeds, device type, thread count). Batch order
  comes from `RandomStream("batches", run seed, round, client, epoch)`, view parameters from a generator seeded by
  `RandomStream("views", run seed, round, client)`; global generators are never touched.
- A fresh optimiser every round: momentum starts at zero, as in the official code.
- Both views of a batch go through the model as one batch of 2B, so BatchNorm sees them together (unless `apart`: then
  each goes by itself, first views first). Anchors, which
  some methods' terms ask for, ride along as a third B; their order and their views have generators of their own
  (`anchors` in place of `batches` and `views`), so the views are the same with and without them.
- The last, smaller batch of an epoch is dropped if `drop_last` says so, unless it is the only one: a client with
  fewer images than a batch trains on one batch of all it has. (The official code drops it for K <= 10 clients,
  and there such a client does nothing and reports NaN.) A batch of one image is always left out: it has no pair
  for uniformity and no batch statistics.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ssd.data.images.source import ImageSource
from ssd.data.views.views import Views
from ssd.losses.dimension_scaled import DimensionScaling
from ssd.losses.objective import PairLoss, Terms, objective
from ssd.losses.presets import SsdLosses
from ssd.method.protocol import Progress
from ssd.methods.self_supervised.terms import Step, Term, statistic
from ssd.models.flat import FlatModel
from ssd.random_stream import RandomStream

CUDA_CHECK_INTERVAL = 25
"""Steps between looks at the loss on an accelerator, where every look waits for the device."""

STATISTICS = (
    "loss_sum",
    "alignment_sum",
    "uniformity_sum",
    "dsr_sum",
    "distillation_sum",
    "representation_norm_sum",
    "embedding_norm_sum",
    "batches",
    "images",
)
"""All additive: a `*_sum` is over mini-batches (norms: of the batch means of ‖h‖ and ‖z‖), `images` counts every
image of every epoch. The parts of further terms follow by name (`ssd.methods.self_supervised.terms.statistic`)."""
BASE_STATISTICS = tuple(name for name in STATISTICS if name not in ("dsr_sum", "distillation_sum"))
"""Those of a method whose objective is alignment and uniformity alone."""
_MEASURED = STATISTICS[:7]


class TrainingDiverged(ArithmeticError):
    """A loss or a parameter stopped being finite."""


class TooFewImages(ValueError):
    """A client has fewer than two images: there is nothing to train on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOptions:
    """How a client trains; the defaults are the official code's."""

    local_epochs: int = 5
    batch_size: int = 128
    drop_last: bool = True
    """Drop an epoch's last, smaller batch (the official code: with up to ten clients)."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    mixed_precision: bool = False
    """bfloat16 forward passes on CUDA; the objective stays float32. No effect on the CPU."""

    def __post_init__(self) -> None:
        if self.local_epochs < 1:
            raise ValueError(f"local_epochs must be at least 1, got {self.local_epochs}")
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, got {self.batch_size}")
        if not 0.0 <= self.momentum < 1.0:
            raise ValueError(f"momentum must be 0 to below 1, got {self.momentum}")
        if self.weight_decay < 0.0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Seeds:
    """What a client's randomness in one round is derived from."""

    run_seed: int
    round: int
    client_id: str

    def order(self, epoch: int, count: int) -> list[int]:
        """The order of the client's images in one epoch."""
        return RandomStream("batches", self.run_seed, self.round, self.client_id, epoch).permutation(count)

    def views(self) -> torch.Generator:
        """A CPU generator for the views of one visit."""
        return self.generator("views")

    def anchor_order(self, epoch: int, count: int) -> list[int]:
        """The order in which the client's images serve as anchors in one epoch."""
        return RandomStream("anchors", self.run_seed, self.round, self.client_id, epoch).permutation(count)

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator for one purpose within one visit; unrelated to those for other purposes."""
        stream = RandomStream(purpose, self.run_seed, self.round, self.client_id)
        return torch.Generator().manual_seed(stream.seed64())


def batch_sizes(count: int, options: TrainingOptions) -> list[int]:
    """The sizes of one epoch's batches, in order; see the rules at the top of this module.

    Raises:
        TooFewImages: fewer than two images.

    """
    if count < 2:
        raise TooFewImages(f"a client needs at least two images to train on, this one has {count}")
    full, rest = divmod(count, options.batch_size)
    sizes = [options.batch_size] * full
    if rest >= 2 and not (options.drop_last and full):
        sizes.append(rest)
    return sizes


def read_ahead(
    source: ImageSource, batches: Iterable[list[int]], device: torch.device
) -> Generator[Tensor, None, None]:
    """The images of each batch on the device; the next batch is decoded while this one is trained on."""

    def read(indices: list[int]) -> Tensor:
        images = source.batch(indices)
        # Only from pinned memory does the copy to an accelerator overlap with its work.
        return images.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else images

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as reader:
        following: Future[Tensor] | None = None
        for indices in batches:
            current, following = following, reader.submit(read, indices)
            if current is not None:
                yield current.result()
        if following is not None:
            yield following.result()


@dataclass
class MomentumSgd:
    """SGD with momentum and L2 decay on one flat vector; the update rule of `torch.optim.SGD`.

    Written out because it is three operations here, and because constructing torch's first optimiser imports its
    compiler, a second of start-up in every training process.
    """

    lr: float
    momentum: float
    weight_decay: float
    _velocity: Tensor | None = field(default=None, init=False)

    @torch.no_grad()
    def step(self, parameters: Tensor, gradient: Tensor) -> None:
        """Move `parameters` in place; `gradient` is overwritten."""
        gradient.add_(parameters, alpha=self.weight_decay)
        if self._velocity is None:
            self._velocity = gradient.clone()
        else:
            self._velocity.mul_(self.momentum).add_(gradient)
        parameters.add_(self._velocity, alpha=-self.lr)


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalTraining:
    """Everything of a client's visit that is not the model or the data."""

    options: TrainingOptions
    losses: SsdLosses
    views: Views
    lr: float
    seeds: Seeds
    scaling: DimensionScaling | None
    terms: tuple[Term, ...] = ()
    """What the method adds to the objective."""
    pair_loss: PairLoss | None = None
    """The loss of two views that takes the place of alignment and uniformity."""
    apart: bool = False
    """Each view goes through the model in a pass of its own, as in the official code."""

    def run(self, model: FlatModel, source: ImageSource, progress: Progress) -> Mapping[str, float]:
        """Train `model` in place on `source`; returns the `STATISTICS` and those of the terms.

        Raises:
            TooFewImages: fewer than two images.
            TrainingDiverged: a loss or a parameter is not finite.
        """
        sizes = batch_sizes(len(source), self.options)
        steps = self.options.local_epochs * len(sizes)
        device = model.trainable.device
        interval = 1 if device.type == "cpu" else CUDA_CHECK_INTERVAL
        optimiser = MomentumSgd(self.lr, self.options.momentum, self.options.weight_decay)
        generators = self.seeds.views(), self.seeds.generator("anchors")
        names = [*_MEASURED, *(statistic(part) for term in self.terms for part in term.weights)]
        totals = torch.zeros(len(names), dtype=torch.float64, device=device)
        for module in model.parts.values():
            module.train()
        batches = self._batches(len(source), sizes)
        with closing(read_ahead(source, batches, device)) as loaded:
            for step, images in enumerate(loaded, start=1):
                latest = self._step(model, optimiser, self._views(images, *generators))
                totals += latest
                if step % interval == 0 or step == steps:
                    self._report(step, steps, dict(zip(names, latest.tolist(), strict=True)), progress)
        model.clear_gradient()
        if not bool(torch.isfinite(model.trainable).all()):
            raise TrainingDiverged(self._advice("a parameter is not finite", steps, steps))
        seen = self.options.local_epochs * sum(sizes)
        counted = {"batches": float(steps), "images": float(seen)}
        return {**dict(zip(names, totals.tolist(), strict=True)), **counted}

    @property
    def _anchored(self) -> bool:
        return any(term.needs_anchors for term in self.terms)

    def _batches(self, count: int, sizes: Sequence[int]) -> Iterator[list[int]]:
        """The images of every batch; with anchors, as many of those behind them."""
        for epoch in range(self.options.local_epochs):
            order = self.seeds.order(epoch, count)
            anchors = self.seeds.anchor_order(epoch, count) if self._anchored else []
            start = 0
            for size in sizes:
                yield order[start : start + size] + anchors[start : start + size]
                start += size

    def _views(self, images: Tensor, views: torch.Generator, anchors: torch.Generator) -> Tensor:
        if not self._anchored:
            return self.views.pair(images, views)
        batch, others = images.chunk(2)
        return torch.cat([self.views.pair(batch, views), self.views.one(others, anchors)])

    def _step(self, model: FlatModel, optimiser: MomentumSgd, views: Tensor) -> Tensor:
        """One optimiser step; the loss, its terms and the norms of this batch, in the order `run` names them."""
        terms, norms, step = self._forward(model, views)
        loss, added = terms.loss, []
        for term in self.terms:
            parts = term.parts(step)
            for name, weight in term.weights.items():
                loss = loss + weight * parts[name]
                added.append(parts[name])
        model.clear_gradient()
        torch.autograd.backward(loss)
        optimiser.step(model.trainable, model.gradient())
        measured = (loss, terms.alignment, terms.uniformity, terms.dsr, terms.distillation, *norms, *added)
        return torch.stack([part.detach() for part in measured])

    def _forward(self, model: FlatModel, views: Tensor) -> tuple[Terms, tuple[Tensor, Tensor], Step]:
        mixed = self.options.mixed_precision and views.device.type == "cuda"
        with torch.autocast(views.device.type, dtype=torch.bfloat16, enabled=mixed):
            head = model.parts.get("projector")
            passes = []
            for each in views.chunk(3 if self._anchored else 2) if self.apart else (views,):
                made = model.parts["encoder"](each)
                passes.append((made, made if head is None else head(made)))
        representations, embeddings = (
            (both[0] if len(both) == 1 else torch.cat(both)).float() for both in zip(*passes, strict=True)
        )
        h, z = (both.chunk(3 if self._anchored else 2) for both in (representations, embeddings))
        step = Step(
            views=views,
            representations=(h[0], h[1]),
            embeddings=(z[0], z[1]),
            anchors=z[2] if self._anchored else None,
        )
        terms = objective(step.representations, step.embeddings, self.losses, self.scaling, self.pair_loss)
        rows = 2 * h[0].shape[0]
        norms = (_mean_norm(representations[:rows]), _mean_norm(embeddings[:rows]))
        return terms, norms, step

    def _report(self, step: int, steps: int, latest: Mapping[str, float], progress: Progress) -> None:
        if not math.isfinite(latest["loss_sum"]):
            raise TrainingDiverged(self._advice(f"the loss is {latest['loss_sum']}", step, steps))
        progress(step, steps, {name.removesuffix("_sum"): value for name, value in latest.items()})

    def _advice(self, what: str, step: int, steps: int) -> str:
        return (
            f"training of client {self.seeds.client_id!r} diverged in round {self.seeds.round} at step {step} of "
            f"{steps}: {what} (learning rate {self.lr:g}); lower the learning rate or the loss weights"
        )


def _mean_norm(rows: Tensor) -> Tensor:
    norms: Tensor = rows.detach().norm(dim=1)
    return norms.mean()
