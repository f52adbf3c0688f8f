"""Gives memory to networks that were built on the meta device."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def allocated(skeleton: Network) -> Network:
    """The same module with memory on the CPU for every tensor of its state; what it holds is undefined.

    `Module.to_empty` would do, but its way from the meta device leads through torch's Python reference of `empty_like`,
    which imports the compiler's symbolic shapes: half a second of start-up in every process that trains or measures.
    """
    empty = {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        for name, tensor in skeleton.state_dict().items()
    }
    skeleton.load_state_dict(empty, assign=True)
    return skeleton
