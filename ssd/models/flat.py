"""A model as one flat float32 vector.

Parameters and BatchNorm statistics of all parts live in *one* tensor, and the modules hold views into it: loading
a version is one copy, reading one back is one copy, and an optimiser step is three operations on one vector
instead of three per layer.

Layout: the parameters of each part as a group of its own, in `named_parameters` order, then one group `buffers`
with every running mean and variance. The batch counter is in neither the vector nor the spec. With the `local`
policy the statistics still live in the tensor, behind the vector, but belong to the client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssd.spec import Kind, ParameterSpec

BUFFERS = "buffers"
COUNTER = "num_batches_tracked"
STATISTICS = ("running_mean", "running_var")

BufferPolicy = Literal["averaged", "local"]
"""`averaged`: BatchNorm statistics travel and are averaged plainly (SSD's code); `local`: they stay on the
client. Exchanging without averaging is not offered: with one global model it would mean picking one client's
statistics for everybody."""

Entry = tuple[str, tuple[int, ...], str, Kind]


@dataclass(frozen=True, slots=True)
class _Slot:
    """One tensor of a module and where it lives in the flat tensor."""

    name: str
    owner: nn.Module
    attribute: str
    group: str
    kind: Kind
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


def entries_of(parts: Mapping[str, nn.Module], policy: BufferPolicy) -> list[Entry]:
    """The spec entries of the vector that travels; weights may be on the meta device.

    Raises:
        ValueError: a buffer is neither BatchNorm's running mean, its running variance nor its counter.

    """
    slots = [*_parameters(parts), *(_buffers(parts) if policy == "averaged" else ())]
    return [(slot.name, slot.shape, slot.group, slot.kind) for slot in slots]


def _parameters(parts: Mapping[str, nn.Module]) -> Iterator[_Slot]:
    for part, root in parts.items():
        for path, module in root.named_modules():
            for attribute, parameter in module.named_parameters(recurse=False):
                name = ".".join(filter(None, (part, path, attribute)))
                yield _Slot(name, module, attribute, part, Kind.PARAMETER, tuple(parameter.shape))


def _buffers(parts: Mapping[str, nn.Module]) -> Iterator[_Slot]:
    kinds = dict(zip(STATISTICS, (Kind.BUFFER, Kind.VARIANCE), strict=True))
    for part, root in parts.items():
        for path, module in root.named_modules():
            for attribute, buffer in module.named_buffers(recurse=False):
                if attribute == COUNTER:
                    continue
                name = ".".join(filter(None, (part, path, attribute)))
                if attribute not in kinds:
                    raise ValueError(f"{name} is a buffer of unknown kind; only BatchNorm's are supported")
                yield _Slot(name, module, attribute, BUFFERS, kinds[attribute], tuple(buffer.shape))


class FlatModel:
    """Modules on one device whose tensors are views into one flat vector."""

    def __init__(
        self, parts: Mapping[str, nn.Module], policy: BufferPolicy, device: torch.device | str
    ) -> None:
        """Take over `parts` (moved to `device`; their present values are kept)."""
        for module in parts.values():
            module.to(device)
        slots = [*_parameters(parts), *_buffers(parts)]
        self.parts = dict(parts)
        self.spec = ParameterSpec.build(entries_of(parts, policy))
        self._flat = torch.cat(
            [getattr(s.owner, s.attribute).detach().reshape(-1).to(torch.float32) for s in slots]
        )
        self._trainable = sum(slot.size for slot in slots if slot.kind is Kind.PARAMETER)
        self._parameters: list[nn.Parameter] = []
        pieces = torch.split(self._flat, [slot.size for slot in slots])
        for slot, piece in zip(slots, pieces, strict=True):
            view = piece.view(slot.shape)
            if slot.kind is Kind.PARAMETER:
                parameter = getattr(slot.owner, slot.attribute)
                parameter.data = view
                self._parameters.append(parameter)
            else:
                setattr(slot.owner, slot.attribute, view)

    @property
    def trainable(self) -> Tensor:
        """[p] the parameters: what the optimiser moves, shared with the modules."""
        return self._flat[: self._trainable]

    def gradient(self) -> Tensor:
        """[p] the gradients of all parameters after a backward pass; zero where none flowed."""
        gradients = [
            torch.zeros_like(p).reshape(-1) if p.grad is None else p.grad.reshape(-1)
            for p in self._parameters
        ]
        return torch.cat(gradients)

    def clear_gradient(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def load(self, vector: NDArray[np.float32], local: NDArray[np.float32] | None = None) -> None:
        """Set the model to a version.

        Args:
            vector: [n] what travels.
            local: the client's own statistics under the `local` policy; None for fresh ones (mean 0, variance 1).

        Raises:
            ValueError: an array has the wrong length.

        """
        if vector.shape != (self.spec.size,):
            raise ValueError(f"the model has {self.spec.size} values, the vector {vector.shape}")
        # torch.tensor copies: the vector may be read-only, which from_numpy warns about.
        self._flat[: self.spec.size].copy_(torch.tensor(vector))
        private = self._flat[self.spec.size :]
        if not private.numel():
            return
        if local is None:
            for module in self.parts.values():
                for layer in module.modules():
                    if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                        layer.reset_running_stats()
        elif local.shape != tuple(private.shape):
            raise ValueError(
                f"the client's statistics have {local.shape} values, the model {tuple(private.shape)}"
            )
        else:
            private.copy_(torch.tensor(local))

    def vector(self) -> NDArray[np.float32]:
        """[n] float32: what travels, copied to the CPU."""
        return _copy(self._flat[: self.spec.size])

    def local(self) -> NDArray[np.float32] | None:
        """The client's own statistics, copied to the CPU; None unless the policy is `local`."""
        private = self._flat[self.spec.size :]
        return _copy(private) if private.numel() else None


def _copy(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().to("cpu", copy=True).numpy()
    return array
