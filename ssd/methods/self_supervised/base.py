"""The shared part of SSD and FedAlignUniform: everything but which losses and whether there is a scaling vector.

FedAlignUniform is FedAvg over clients that minimise L_align + β·L_uniform (SSD, arXiv 2508.01251, §2); SSD adds
two terms to the same objective. Both networks travel and are averaged; only the encoder is taken home.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ssd.data.images.source import ImageSource, ProbeData, expect_images
from ssd.data.views.views import Views
from ssd.evaluation.federated_quality import Sums, client_sums, encoder_and_head, nothing
from ssd.export.encoder_file import fitting, read_encoder
from ssd.losses.dimension_scaled import DimensionScaling
from ssd.losses.presets import AlignUniformLosses, SsdLosses
from ssd.method.protocol import ClientResult, ClientTask, EvaluationTask, Progress
from ssd.methods.self_supervised.config import AlignUniformConfig, declared, quality_declaration
from ssd.methods.self_supervised.terms import Term
from ssd.methods.self_supervised.training import (
    STATISTICS,
    LocalTraining,
    Seeds,
    TrainingDiverged,
    batch_sizes,
)
from ssd.models import projector, registry
from ssd.models.allocate import allocated
from ssd.models.batch_statistics import calibrate
from ssd.models.flat import BUFFERS, FlatModel, entries_of, reducer_of
from ssd.models.initialise import initialise
from ssd.random_stream import RandomStream
from ssd.torch_support.determinism import deterministic
from ssd.updates.declaration import (
    Declaration,
    GroupDeclaration,
    ScalingDeclaration,
    StatisticDeclaration,
)
from ssd.updates.spec import ParameterSpec

ENCODER, PROJECTOR = "encoder", "projector"
OWN = "parameters"
"""Name of a client's own model in its state, with `start = "own"`."""


class AlignUniform:
    """Implements the `Method` protocol for the align-and-uniform family.

    A model is built once per device and reused for every client of the process; nothing of one client's visit
    survives in it, because loading a version overwrites every tensor. Not safe for concurrent calls.
    """

    collects_parameters = False
    """Whether the method has a server hook that sees every client's parameters."""

    def __init__(
        self, name: str, version: int, config: AlignUniformConfig, *, statistics: tuple[str, ...] = STATISTICS
    ) -> None:
        """Take a resolved configuration (`align_uniform_config.resolve`)."""
        self._name = name
        self._version = version
        self._config = config
        self._statistics = statistics
        self._views = Views(config.views, config.image.size)
        self._models: dict[torch.device, FlatModel] = {}
        self._spec = ParameterSpec.build(entries_of(self._skeletons(), config.buffers))

    # What SSD overrides.

    def _losses(self) -> SsdLosses:
        losses: AlignUniformLosses = self._config.losses
        return SsdLosses(
            beta=losses.beta, alignment=losses.alignment, uniformity=losses.uniformity, gamma=0.0, delta=0.0
        )

    def _scaling_declaration(self) -> ScalingDeclaration | None:
        return None

    def _scaling(
        self, task: ClientTask, device: torch.device
    ) -> DimensionScaling | None:  # the base has none
        return None

    # What methods that add to the objective override.

    def _terms(self, task: ClientTask, model: FlatModel) -> tuple[Term, ...]:  # the base adds nothing
        """Returns what this visit adds to the objective; `model` already holds what training starts from."""
        return ()

    # The protocol.

    def declare(self) -> Declaration:
        """See `Method.declare`."""
        bounds = self._config.bounds
        groups = []
        for name in self._spec.groups:
            buffers = name == BUFFERS
            groups.append(
                GroupDeclaration(
                    name=name,
                    reducer=reducer_of(name, self._config.buffers),
                    max_abs=bounds.buffer_max_abs if buffers else bounds.parameter_max_abs,
                    norm_bound=bounds.buffer_norm if buffers else bounds.parameter_norm,
                    compress=not buffers,
                    optimise=not buffers,
                    collect=self.collects_parameters and not buffers,
                )
            )
        return Declaration(
            method=self._name,
            version=self._version,
            spec=self._spec,
            groups=tuple(groups),
            statistics=tuple(StatisticDeclaration(name=name) for name in self._statistics),
            artefacts=self._artefact_names(),
            scaling=self._scaling_declaration(),
            schedules={"lr": self._config.lr},
            persists_client_state=self._config.buffers == "local" or self._config.start == "own",
            server_hook=self.collects_parameters,
            quality=quality_declaration(self._config),
            steerable=("start",) if self._config.start == "own" else (),
            config=declared(self._config),
        )

    def _artefact_names(self) -> tuple[str, ...]:
        return ()

    def initial(self, seed: int, warm_start: Path | None) -> NDArray[np.float32]:
        """See `Method.initial`.

        Raises:
            ValueError: a warm start with `start = "own"`: a client that joins late would not receive it.
        """
        if warm_start is not None and self._config.start == "own":
            raise ValueError(
                f'{self._name} with start = "own" starts every client from the run\'s seed and takes no warm start'
            )
        parts = self._parts()
        for part, module in parts.items():
            generator = torch.Generator().manual_seed(RandomStream("initial", part, seed).seed64())
            initialise(module, generator, self._config.initialisation)
        vector = FlatModel(parts, self._config.buffers, "cpu").vector()
        if warm_start is not None:
            self._overwrite(vector, warm_start)
        return vector

    def artefacts(self, seed: int) -> Mapping[str, NDArray[np.float32]]:  # the base has none
        """See `Method.artefacts`."""
        return {}

    def train(self, task: ClientTask, data: object, progress: Progress) -> ClientResult:
        """See `Method.train`; `data` is an `ImageSource` of the configured format.

        Raises:
            TooFewImages: the client has fewer than two images.
            TrainingDiverged: a loss, a parameter or a statistic stopped being finite.
            ValueError: the task or the data do not fit the method; the message says how.

        """
        source = expect_images(data, self._config.image, margin=True)
        if "lr" not in task.values:
            raise ValueError(f"the task carries no learning rate, only {sorted(task.values)}")
        device = torch.device(task.device)
        with deterministic(device, task.threads):
            model = self._model(device)
            local = task.state.get(BUFFERS)
            start = self._start(task)
            buffers = None if local is None else np.asarray(local, dtype=np.float32)
            quality = self._quality_sums(task, model, source, buffers)
            model.load(start, buffers)
            training = LocalTraining(
                options=self._config,
                losses=self._losses(),
                views=self._views,
                lr=task.values["lr"],
                seeds=Seeds(run_seed=task.run_seed, round=task.round, client_id=task.client_id),
                scaling=self._scaling(task, device),
                terms=self._terms(task, model),
                pair_loss=self._config.pair_loss(),
                apart=self._config.forward == "apart",
            )
            statistics = training.run(model, source, progress)
            after, kept = model.vector(), model.local()
        delta = after - task.base
        if not np.isfinite(delta).all():
            raise TrainingDiverged(
                f"client {task.client_id!r}: a BatchNorm statistic is not finite after training"
            )
        state: dict[str, NDArray[np.float32]] = {} if kept is None else {BUFFERS: kept}
        if self._config.start == "own":
            state[OWN] = after
        by_images = self._config.weighting == "images"
        return ClientResult(
            delta=delta,
            weight=len(source) if by_images else len(batch_sizes(len(source), self._config)),
            statistics={name: np.asarray(statistics[name], dtype=np.float64) for name in self._statistics}
            | quality,
            state=state,
        )

    def _start(self, task: ClientTask) -> NDArray[np.float32]:
        """[n] what the visit starts from."""
        if self._config.start == "received":
            return task.base
        # Version 0 for a client without a model of its own, even if it joins late: the received one is the others'.
        own = task.state.get(OWN)
        return self.initial(task.run_seed, None) if own is None else np.asarray(own, dtype=np.float32)

    def _quality_sums(
        self,
        task: ClientTask,
        model: FlatModel,
        source: ImageSource,
        local: NDArray[np.float32] | None,
    ) -> Sums:
        """The quality sums of the received version; {} in a round that does not measure. Loads it into `model`."""
        quality = quality_declaration(self._config) if task.quality else None
        if quality is None:
            return {}
        if self._config.buffers == "local" and local is None:
            # Without BatchNorm statistics of its own the client has no features yet.
            return nothing(quality)
        model.load(task.base, local)
        encode = encoder_and_head(model.parts, torch.device(task.device))
        return client_sums(quality, encode, self._views, source, task, size=self._config.image.size)

    def evaluate(self, task: EvaluationTask, data: object) -> Mapping[str, float]:
        """Linear probe, kNN and representation quality of h; see `ssd.evaluation.evaluate`.

        Options of the task: `labels_per_class` (2), `draws` (5), `knn_k` (20), `quality_samples` (2000).
        """
        # Evaluation brings scikit-learn, which a training process never needs.
        from ssd.evaluation.evaluate import EvaluationOptions, evaluate_encoder
        from ssd.evaluation.features import module_encoder

        if not isinstance(data, ProbeData):
            raise TypeError(f"evaluation needs probe data, got {type(data).__name__}")
        expect_images(data.train, self._config.image)
        device = torch.device(task.device)
        with deterministic(device, task.threads):
            model = self._model(device)
            model.load(task.vector)
            if self._config.buffers == "local":
                calibrate(model.parts[ENCODER], data.train, device)
            options = EvaluationOptions(
                device=device,
                labels_per_class=(int(task.options.get("labels_per_class", 2)),),
                draws=int(task.options.get("draws", 5)),
                knn_k=int(task.options.get("knn_k", 20)),
                quality_samples=int(task.options.get("quality_samples", 2000)),
                seed=task.run_seed,
                views=self._views.pair,
            )
            encode = module_encoder(model.parts[ENCODER], device)
            return evaluate_encoder(encode, data, data.clients, options)

    def export(self, vector: NDArray[np.float32]) -> Mapping[str, NDArray[np.generic]]:
        """The encoder's tensors by state-dict name; without BatchNorm statistics if `buffers` is `local`."""
        if vector.shape != (self._spec.size,):
            raise ValueError(f"the model has {self._spec.size} values, the vector {vector.shape}")
        prefix = f"{ENCODER}."
        return {
            tensor.name.removeprefix(prefix): vector[tensor.where].reshape(tensor.shape).astype(np.float32)
            for tensor in self._spec.tensors
            if tensor.name.startswith(prefix)
        }

    # The rest.

    def _trained_groups(self) -> list[str]:
        """The groups that the optimiser moves: all but the BatchNorm statistics."""
        return [name for name in self._spec.groups if name != BUFFERS]

    def _skeletons(self) -> dict[str, nn.Module]:
        """The networks on the meta device: shapes and names, no memory."""
        config = self._config
        parts = {ENCODER: registry.skeleton(config.model, config.image)}
        if config.projector is not None:
            assert config.model.feature_dim is not None
            parts[PROJECTOR] = projector.skeleton(config.model.feature_dim, config.projector)
        return parts

    def _parts(self) -> dict[str, nn.Module]:
        """The networks on the CPU, weights undefined."""
        return {name: allocated(module) for name, module in self._skeletons().items()}

    def _model(self, device: torch.device) -> FlatModel:
        if device not in self._models:
            self._models[device] = FlatModel(self._parts(), self._config.buffers, device)
        return self._models[device]

    def _overwrite(self, vector: NDArray[np.float32], path: Path) -> None:
        """Put the tensors of an encoder file in their places in `vector`."""
        tensors, _ = read_encoder(path)
        prefix = f"{ENCODER}."
        places = {t.name.removeprefix(prefix): t for t in self._spec.tensors if t.name.startswith(prefix)}
        if self._config.buffers == "local":
            tensors = {name: value for name, value in tensors.items() if "running_" not in name}
        fitting(tensors, {name: tensor.shape for name, tensor in places.items()}, path)
        for name, tensor in places.items():
            vector[tensor.where] = tensors[name].reshape(-1)
