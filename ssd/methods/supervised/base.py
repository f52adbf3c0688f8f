"""The shared part of the supervised methods, and what a method of your own derives from.

A classifier is a backbone and a head. Whatever is not private travels and is averaged; what is private stays in the
client's state, as do local BatchNorm statistics and the place in a stream of batches. Every client trains with SGD on
`loss`, by default the cross-entropy. `docs/methods.md` shows a whole method outside this package.

To derive: override `loss` (and name further reported terms in `terms`); `begin`, `extra_statistics` and `summary` for
what a visit needs and reports beyond it; `phases` to train parts one after the other; `private_parts` and `group` for
what travels and how it is reduced; `declare` for a server hook.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from ssd.data.images.source import ProbeData, expect_images, expect_labels
from ssd.data.preparation import Preparation
from ssd.method.protocol import ClientEvaluationTask, ClientResult, ClientTask, EvaluationTask, Progress
from ssd.method.schedule import resolve as resolve_schedules
from ssd.methods.self_supervised.training import Seeds, TrainingDiverged, batch_sizes
from ssd.methods.supervised.config import Config, SupervisedConfig, resolve
from ssd.methods.supervised.context import Batch, Context, Loss
from ssd.methods.supervised.evaluation import calibrated, count_correct, represent
from ssd.methods.supervised.networks import Networks
from ssd.methods.supervised.state import ClientState
from ssd.methods.supervised.training import Phase, SupervisedTraining, steps_of_visit
from ssd.models.classifier import BACKBONE, HEAD, Classifier
from ssd.models.flat import BUFFERS, FlatModel, reducer_of
from ssd.random_stream import RandomStream
from ssd.settings import to_json
from ssd.torch_support.determinism import deterministic
from ssd.updates.declaration import Declaration, GroupDeclaration, StatisticDeclaration

__all__ = ["Batch", "Context", "Loss", "Supervised", "SupervisedConfig", "resolve"]


class Supervised(Generic[Config]):
    """Implements the `Method` protocol; FedAvg as it stands.

    Nothing of one client's visit survives in it but models whose every tensor the next visit overwrites. Not safe for
    concurrent calls.
    """

    terms: tuple[str, ...] = ()
    """Names of the loss's reported terms. A term of weight 0 should be neither computed nor named."""
    resumes: bool = False
    """True: a client keeps its own copy of what travels, and `start` begins its next visit from that."""

    def __init__(self, name: str, version: int, config: Config) -> None:
        """Take a resolved configuration (`resolve`).

        Args:
            name: the method's; of a file of one's own, the one that workers' `[methods]` tables map to the file.
            version: bumped when the same name starts to mean something else.
            config: an instance of `SupervisedConfig` or of a class derived from it.

        """
        self.config = config
        self._name = name
        self._version = version
        self.networks = Networks(config, self.private_parts())
        self._preparation = Preparation(
            size=config.image.size, normalisation=config.normalise, augmentation=config.augment
        )
        self._spec = self.networks.spec

    # What a method overrides.

    def loss(self, batch: Batch, context: Context) -> Loss:
        """The objective of one mini-batch."""
        logits = context.model(batch.images)
        return Loss(cross_entropy(logits, batch.labels), logits)

    def begin(self, context: Context) -> Any:
        """Called once a visit, with the model loaded, before the first step; the result is `context.own`."""
        return None

    def start(self, run_seed: int, received: NDArray[np.float32], state: ClientState) -> NDArray[np.float32]:
        """[n] where a client's visit (or its evaluation) starts: its own model if it keeps one."""
        return received if state.model is None else state.model

    def extra_statistics(self) -> tuple[StatisticDeclaration, ...]:
        """Declarations of additive statistics beyond the loss's; `summary` gives their values."""
        return ()

    def summary(self, context: Context) -> Mapping[str, NDArray[np.float64]]:
        """The extra statistics after a visit, in their declared shapes."""
        return {}

    def phases(self, model: FlatModel, count: int) -> Sequence[Phase]:
        """Says which parameters move in which steps, for a client with `count` images.

        By default all of them move in every step.
        """
        return (Phase(slice(0, model.trainable.numel()), steps_of_visit(count, self.config)),)

    def private_parts(self) -> tuple[str, ...]:
        """Names of the parts that stay with the client and persist there."""
        return (HEAD,) if self.config.head == "private" else ()

    def private_seed(self, run_seed: int, client: str, part: str) -> int:
        """What a private part's initial weights are drawn from; by default every client has weights of its own."""
        return RandomStream("private", run_seed, client, part).seed64()

    def group(self, name: str) -> GroupDeclaration:
        """How a group of the vector (a part, or `buffers`) is reduced and bounded."""
        bounds, buffers = self.config.bounds, name == BUFFERS
        return GroupDeclaration(
            name=name,
            reducer=reducer_of(name, self.config.buffers),
            max_abs=bounds.buffer_max_abs if buffers else bounds.parameter_max_abs,
            norm_bound=bounds.buffer_norm if buffers else bounds.parameter_norm,
            compress=not buffers,
            optimise=not buffers,
        )

    # The protocol.

    def declare(self) -> Declaration:
        """See `Method.declare`."""
        names = ("loss_sum", *(f"{term}_sum" for term in self.terms), "correct", "images", "batches")
        config = self.config
        return Declaration(
            method=self._name,
            version=self._version,
            spec=self._spec,
            groups=tuple(self.group(name) for name in self._spec.groups),
            statistics=(*(StatisticDeclaration(name=name) for name in names), *self.extra_statistics()),
            schedules=config.schedules(),
            needs_labels=True,
            persists_client_state=bool(self.networks.private)
            or config.buffers == "local"
            or config.batches == "stream"
            or config.lr_lag
            or self.resumes,
            client_evaluation=True,
            steerable=tuple(
                name for name, on in (("lr_lag", config.lr_lag), ("resumes", self.resumes)) if on
            ),
            config=to_json(config),
        )

    def initial(self, seed: int, warm_start: Path | None) -> NDArray[np.float32]:
        """See `Method.initial`; a warm start replaces the backbone."""
        vector = self.networks.initial(seed)
        if warm_start is not None:
            self.networks.overwrite_backbone(vector, warm_start)
        return vector

    def artefacts(self, seed: int) -> Mapping[str, NDArray[np.float32]]:
        """See `Method.artefacts`. A supervised method has none."""
        return {}

    def train(self, task: ClientTask, data: object, progress: Progress) -> ClientResult:
        """See `Method.train`; `data` is a labelled `ImageSource` of the configured format.

        Raises:
            TooFewImages: the client has fewer than two images.
            TrainingDiverged: a loss, a parameter or a statistic stopped being finite.
            ValueError: the task or the data do not fit the method; the message says how.

        """
        source = expect_images(data, self.config.image, margin=True)
        labels = expect_labels(source, self.config.classes)
        if "lr" not in task.values:
            raise ValueError(f"the task carries no learning rate, only {sorted(task.values)}")
        per_epoch = len(batch_sizes(len(source), self.config))
        state = self._state(task.run_seed, task.client_id, task.state)
        device = torch.device(task.device)
        with deterministic(device, task.threads):
            flat = self.networks.load("student", device, self.start(task.run_seed, task.base, state), state)
            context = self._context(task, labels, flat, state, device)
            context.own = self.begin(context)
            phases = self.phases(flat, len(source))
            training = SupervisedTraining(
                options=self.config,
                preparation=self._preparation,
                loss=self.loss,
                terms=self.terms,
                phases=phases,
                lr=self._lr(task, state),
                cursor=state.cursor,
            )
            statistics = training.run(context, source, progress)
            after, kept = flat.vector(), (flat.private(), flat.local())
            extra = self.summary(context)
        delta = after - task.base
        if not all(np.isfinite(each).all() for each in (delta, *kept) if each is not None):
            raise TrainingDiverged(
                f"client {task.client_id!r}: a BatchNorm statistic is not finite after training"
            )
        steps = sum(phase.steps for phase in phases)
        following = ClientState(
            private=kept[0],
            buffers=kept[1],
            model=after if self.resumes else None,
            cursor=state.cursor.after(steps, per_epoch),
            lr=task.values["lr"] if self.config.lr_lag else None,
        )
        return ClientResult(
            delta=delta,
            weight={"images": len(source), "batches": per_epoch, "uniform": 1}[self.config.weighting],
            statistics={
                name: np.asarray(value, np.float64) for name, value in {**statistics, **extra}.items()
            },
            state=following.arrays(with_cursor=self.config.batches == "stream"),
        )

    def evaluate(self, task: EvaluationTask, data: object) -> Mapping[str, float]:
        """The version on the probe's test images: `accuracy` and `test_loss`, if it is a whole classifier.

        With `representation` set, and for a version whose head stays on the clients, also what its features are worth;
        see `ssd.evaluation.evaluate`. Nothing at all if the backbone is private: then only clients can measure.
        """
        if not isinstance(data, ProbeData):
            raise TypeError(f"evaluation needs probe data, got {type(data).__name__}")
        test = expect_images(data.test, self.config.image)
        train = expect_images(data.train, self.config.image)
        labels = expect_labels(test, self.config.classes)
        if BACKBONE in self.networks.private:
            return {}
        device = torch.device(task.device)
        values: dict[str, float] = {}
        with deterministic(device, task.threads):
            state = self._state(task.run_seed, "", {})
            flat = self.networks.load("student", device, task.vector, state)
            model = self.networks.classifier(flat)
            if self.config.buffers == "local":
                calibrated(model.backbone, train, self._preparation, device)
            if not self.networks.private:
                count = count_correct(model, test, labels, self._preparation, device)
                values |= {
                    "accuracy": count.correct / count.images,
                    "test_loss": count.loss_sum / count.images,
                }
            if self.networks.private or self.config.representation:
                values |= represent(model.backbone, data, self._preparation, task, device)
        return values

    def evaluate_client(self, task: ClientEvaluationTask, train: object, test: object) -> Mapping[str, float]:
        """`correct` and `images`: the version on a client's test images, with the client's own parts and statistics.

        A client without state has its initial private parts; local BatchNorm statistics it does not have yet are
        measured on its training images.
        """
        source = expect_images(test, self.config.image, margin=True)
        labels = expect_labels(source, self.config.classes)
        state = self._state(task.run_seed, task.client_id, task.state)
        device = torch.device(task.device)
        with deterministic(device, task.threads):
            start = self.start(task.run_seed, task.vector, state)
            model = self.networks.classifier(self.networks.load("student", device, start, state))
            if self.config.buffers == "local" and state.buffers is None:
                own = expect_images(train, self.config.image, margin=True)
                calibrated(model.backbone, own, self._preparation, device)
            count = count_correct(model, source, labels, self._preparation, device)
        return {"correct": float(count.correct), "images": float(count.images)}

    def export(self, vector: NDArray[np.float32]) -> Mapping[str, NDArray[np.generic]]:
        """The backbone's tensors by state-dict name; without BatchNorm statistics if `buffers` is `local`.

        Raises:
            ValueError: the backbone does not travel, or the vector has another length.
        """
        return self.networks.backbone(vector)

    # The rest.

    def _state(self, run_seed: int, client: str, arrays: Mapping[str, NDArray[np.generic]]) -> ClientState:
        """The client's state, with initial values for the private parts of a client that has none."""
        state = ClientState.read(arrays)
        if state.private is not None or not self.networks.private:
            return state
        private = self.networks.initial_private(lambda part: self.private_seed(run_seed, client, part))
        return dataclasses.replace(state, private=private)

    def _lr(self, task: ClientTask, state: ClientState) -> float:
        if not self.config.lr_lag:
            return task.values["lr"]
        # The first round's rate is the schedule's `start` on every host: nothing here can round differently.
        return (
            resolve_schedules({"lr": self.config.lr}, 1, task.rounds)["lr"] if state.lr is None else state.lr
        )

    def _context(
        self,
        task: ClientTask,
        labels: torch.Tensor,
        flat: FlatModel,
        state: ClientState,
        device: torch.device,
    ) -> Context:
        shared = flat.shared.stop - flat.shared.start

        def frozen() -> Classifier:
            teacher = self.networks.load("teacher", device, task.base, state)
            for module in teacher.parts.values():
                module.eval().requires_grad_(False)
            return self.networks.classifier(teacher)

        return Context(
            task=task,
            model=self.networks.classifier(flat),
            received=torch.tensor(task.base[:shared], device=device),
            labels=labels,
            flat=flat,
            frozen=frozen,
            seeds=Seeds(run_seed=task.run_seed, round=task.round, client_id=task.client_id),
        )
