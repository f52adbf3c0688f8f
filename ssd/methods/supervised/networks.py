"""The two networks of a supervised method: their layout, their initial weights, and the models that hold them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ssd.export.encoder_file import fitting, read_encoder
from ssd.methods.supervised.config import SupervisedConfig
from ssd.methods.supervised.state import ClientState
from ssd.models import registry
from ssd.models.allocate import allocated
from ssd.models.classifier import BACKBONE, HEAD, Classifier, head_skeleton
from ssd.models.flat import FlatModel, entries_of
from ssd.models.initialise import initialise
from ssd.random_stream import RandomStream
from ssd.updates.spec import ParameterSpec, TensorSpec

PREFIX = f"{BACKBONE}."


class Networks:
    """The backbone and the head of one configuration.

    A model is built once per device and use and then reused: `load` overwrites all of it.
    """

    def __init__(self, config: SupervisedConfig, private: tuple[str, ...]) -> None:
        """Take a resolved configuration and the names of the parts that do not travel."""
        self.private = private
        self._config = config
        self._models: dict[tuple[torch.device, str], FlatModel] = {}
        self.spec = ParameterSpec.build(entries_of(self._skeletons(), config.buffers, private))

    def parts(self) -> dict[str, nn.Module]:
        """The networks on the CPU, weights undefined."""
        return {name: allocated(module) for name, module in self._skeletons().items()}

    def initial(self, seed: int) -> NDArray[np.float32]:
        """[n] version 0."""
        parts = self.parts()
        for part, module in parts.items():
            initialise(module, torch.Generator().manual_seed(RandomStream("initial", part, seed).seed64()))
        return FlatModel(parts, self._config.buffers, "cpu", self.private).vector()

    def initial_private(self, seed_of: Callable[[str], int]) -> NDArray[np.float32]:
        """The private parts' parameters, each part's drawn from its seed."""
        values = []
        for name, module in self.parts().items():
            if name in self.private:
                initialise(module, torch.Generator().manual_seed(seed_of(name)))
                values += [parameter.detach().numpy().reshape(-1) for parameter in module.parameters()]
        return np.concatenate(values)

    def load(
        self, use: str, device: torch.device, vector: NDArray[np.float32], state: ClientState
    ) -> FlatModel:
        """The model kept for one use, holding a vector and a client's own parts and statistics."""
        if (device, use) not in self._models:
            self._models[device, use] = FlatModel(self.parts(), self._config.buffers, device, self.private)
        model = self._models[device, use]
        model.load(vector, state.buffers, state.private)
        return model

    def classifier(self, model: FlatModel) -> Classifier:
        """A loaded model with its cut points."""
        return Classifier(model.parts[BACKBONE], model.parts[HEAD], self._config.mixed_precision)

    def backbone(self, vector: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
        """The backbone's tensors in a vector, by state-dict name.

        Raises:
            ValueError: the backbone does not travel, or the vector has another length.
        """
        if vector.shape != (self.spec.size,):
            raise ValueError(f"the model has {self.spec.size} values, the vector {vector.shape}")
        places = self._backbone_places("there is nothing to export")
        return {name: vector[t.where].reshape(t.shape).astype(np.float32) for name, t in places.items()}

    def overwrite_backbone(self, vector: NDArray[np.float32], path: Path) -> None:
        """Put the tensors of an encoder file in their places in `vector`.

        Raises:
            ValueError: the backbone does not travel, or the file does not fit it.
        """
        places = self._backbone_places("a warm start would reach nobody")
        tensors, _ = read_encoder(path)
        if self._config.buffers == "local":
            tensors = {name: value for name, value in tensors.items() if "running_" not in name}
        fitting(tensors, {name: tensor.shape for name, tensor in places.items()}, path)
        for name, tensor in places.items():
            vector[tensor.where] = tensors[name].reshape(-1)

    def _backbone_places(self, otherwise: str) -> dict[str, TensorSpec]:
        if BACKBONE in self.private:
            raise ValueError(f"the backbone never leaves the clients: {otherwise}")
        return {t.name.removeprefix(PREFIX): t for t in self.spec.tensors if t.name.startswith(PREFIX)}

    def _skeletons(self) -> dict[str, nn.Module]:
        """The networks on the meta device: shapes and names, no memory."""
        config = self._config
        return {
            BACKBONE: registry.skeleton(config.model, config.image),
            HEAD: head_skeleton(config.feature_dim, config.classes),
        }
