"""A model as one flat float32 vector.

Parameters and BatchNorm statistics of all parts live in *one* tensor, and the modules hold views into it: loading
a version is one copy, reading one back is one copy, and an optimiser step is three operations on one vector
instead of three per layer.

Layout of the tensor:

    private parameters | parameters that travel | BatchNorm statistics that travel | the client's own statistics
    `--------------- trainable ---------------'
                       `------------------- the vector, with a spec ---------------'

In the vector every part's parameters are a group of their own, in `named_parameters` order, followed by one group
`buffers` with the running means and variances. The batch counter is in neither the vector nor the spec. Parts
named `private` never leave the client: neither their parameters nor their statistics are in the vector. With the
`local` policy no statistics are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssd.updates.declaration import Reducer
from ssd.updates.spec import Kind, ParameterSpec

BUFFERS = "buffers"
COUNTER = "num_batches_tracked"
STATISTICS = ("running_mean", "running_var")

BufferPolicy = Literal["averaged", "weighted", "local"]
"""`weighted`: BatchNorm statistics travel and count like parameters, each client by its weight (SSD's official code, which
averages whole state dicts); `averaged`: they travel and every client counts once; `local`: they stay on the client. Exchanging without averaging is not offered: with one global model it would mean picking one client's
statistics for everybody."""


def reducer_of(group: str, policy: BufferPolicy) -> Reducer:
    """How a group of the vector (a part, or `buffers`) is averaged."""
    plainly = group == BUFFERS and policy == "averaged"
    return Reducer.PLAIN_MEAN if plainly else Reducer.WEIGHTED_MEAN


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


def entries_of(
    parts: Mapping[str, nn.Module], policy: BufferPolicy, private: Collection[str] = ()
) -> list[Entry]:
    """The spec entries of the vector that travels; weights may be on the meta device.

    Raises:
        ValueError: a buffer is neither BatchNorm's running mean, its running variance nor its counter.

    """
    _, travelling, _ = _layout(parts, policy, private)
    return [(slot.name, slot.shape, slot.group, slot.kind) for slot in travelling]


def _layout(
    parts: Mapping[str, nn.Module], policy: BufferPolicy, private: Collection[str]
) -> tuple[list[_Slot], list[_Slot], list[_Slot]]:
    """Sorts tensors into those before the vector, in it, and behind it; see the top of this module."""
    own = {name: module for name, module in parts.items() if name in private}
    shared = {name: module for name, module in parts.items() if name not in private}
    travelling, staying = (shared, own) if policy != "local" else ({}, parts)
    return (
        list(_parameters(own)),
        [*_parameters(shared), *_buffers(travelling)],
        list(_buffers(staying)),
    )


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
        self,
        parts: Mapping[str, nn.Module],
        policy: BufferPolicy,
        device: torch.device | str,
        private: Collection[str] = (),
    ) -> None:
        """Take over `parts` (moved to `device`; their present values are kept).

        Args:
            parts: the modules by name, in the order of their groups.
            policy: which BatchNorm statistics travel.
            device: where everything lives.
            private: names of parts that stay on the client.

        """
        for module in parts.values():
            module.to(device)
        before, travelling, behind = _layout(parts, policy, private)
        slots = [*before, *travelling, *behind]
        self.parts = dict(parts)
        self.spec = ParameterSpec.build((slot.name, slot.shape, slot.group, slot.kind) for slot in travelling)
        self._flat = torch.cat(
            [getattr(s.owner, s.attribute).detach().reshape(-1).to(torch.float32) for s in slots]
        )
        self._trainable = sum(slot.size for slot in slots if slot.kind is Kind.PARAMETER)
        self._private = self._flat[: sum(slot.size for slot in before)]
        self._vector = self._flat[self._private.numel() :][: self.spec.size]
        self._behind = self._flat[self._private.numel() + self.spec.size :]
        self._fresh = [(slot.size, 1.0 if slot.kind is Kind.VARIANCE else 0.0) for slot in behind]
        self._gradient: Tensor | None = None
        self._parameters: list[nn.Parameter] = []
        self._travelling: list[nn.Parameter] = []
        self._where: dict[str, slice] = {}
        offset = 0
        for slot, piece in zip(slots, torch.split(self._flat, [slot.size for slot in slots]), strict=True):
            view = piece.view(slot.shape)
            if slot.kind is Kind.PARAMETER:
                parameter = getattr(slot.owner, slot.attribute)
                parameter.data = view
                self._parameters.append(parameter)
                if offset >= self._private.numel():
                    self._travelling.append(parameter)
                begin = self._where[slot.group].start if slot.group in self._where else offset
                self._where[slot.group] = slice(begin, offset + slot.size)
            else:
                setattr(slot.owner, slot.attribute, view)
            offset += slot.size

    @property
    def trainable(self) -> Tensor:
        """[p] the parameters: what the optimiser moves, shared with the modules; private parts come first."""
        return self._flat[: self._trainable]

    @property
    def shared(self) -> slice:
        """Which of the trainable parameters travel."""
        return slice(self._private.numel(), self._trainable)

    def where(self, part: str) -> slice:
        """Which of the trainable parameters are a part's; `KeyError` for a part without any."""
        return self._where[part]

    def shared_parameters(self) -> list[nn.Parameter]:
        """The parameters that travel, in the vector's order."""
        return list(self._travelling)

    def gradient(self) -> Tensor:
        """[p] the gradients of all parameters after a backward pass; zero where none flowed.

        The next call writes into the same memory: fresh pages in every step cost more than the copy itself.
        """
        gradients = [
            torch.zeros_like(p).reshape(-1) if p.grad is None else p.grad.reshape(-1)
            for p in self._parameters
        ]
        if self._gradient is None:
            self._gradient = torch.empty_like(self.trainable)
        return torch.cat(gradients, out=self._gradient)

    def clear_gradient(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def load(
        self,
        vector: NDArray[np.float32],
        local: NDArray[np.float32] | None = None,
        private: NDArray[np.float32] | None = None,
    ) -> None:
        """Set the model to a version.

        Args:
            vector: [n] what travels.
            local: the client's own statistics, as `local` gave them; None for fresh ones (mean 0, variance 1).
            private: the parameters of the private parts, as `private` gave them. None only without such parts:
                otherwise one client's would be left for the next.

        Raises:
            ValueError: an array has the wrong length.

        """
        _fill(self._vector, vector, "the model has", "the vector")
        if private is not None or self._private.numel():
            values = np.zeros(0, dtype=np.float32) if private is None else private
            _fill(self._private, values, "the private parts have", "the client's own parameters")
        if local is not None:
            _fill(self._behind, local, "the model has", "the client's own statistics")
            return
        for (_, value), piece in zip(
            self._fresh, torch.split(self._behind, [size for size, _ in self._fresh]), strict=True
        ):
            piece.fill_(value)

    def vector(self) -> NDArray[np.float32]:
        """[n] float32: what travels, copied to the CPU."""
        return _copy(self._vector)

    def private(self) -> NDArray[np.float32] | None:
        """The parameters of the private parts, copied to the CPU; None if there are none."""
        return _copy(self._private) if self._private.numel() else None

    def local(self) -> NDArray[np.float32] | None:
        """The client's own statistics, copied to the CPU; None if all travel."""
        return _copy(self._behind) if self._behind.numel() else None


def _fill(place: Tensor, values: NDArray[np.float32], owner: str, what: str) -> None:
    if values.shape != tuple(place.shape):
        raise ValueError(f"{owner} {place.numel()} values, {what} {values.shape}")
    # torch.tensor copies: the values may be read-only, which from_numpy warns about.
    place.copy_(torch.tensor(values))


def _copy(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().to("cpu", copy=True).numpy()
    return array
