"""Angular weighting: a client's layer counts as much as it still points where the global one does.

L-DAWA (Rehman et al., ICCV 2023): with w_k^l the parameters of layer l at client k after training and w^l the global
ones it started from, δ_k^l = min(1, cos(w_k^l, w^l)), and the new layer is (1/K) Σ_k δ_k^l · w_k^l. There are no
data-size weights, and the sum is not divided by Σ δ, so layers shrink when clients turn away. A layer is a tensor;
scalars are averaged plainly. Where a vector has no length, as a bias that starts at zero, the cosine is undefined (the
released code gets NaN there): such a layer is averaged plainly too, our choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ssd.method.protocol import CollectedUpdate, Reduction
from ssd.updates.spec import ParameterSpec, TensorSpec

Scope = Literal["layer", "model"]


@dataclass(frozen=True, slots=True)
class AngularMean:
    """The result of angular weighting."""

    delta: NDArray[np.float32]
    """[n] the reduction's delta with the collected groups replaced."""
    mean_cosine: float
    """Mean of all δ, over clients and layers."""
    least_cosine: float


def angular_mean(
    reduction: Reduction, spec: ParameterSpec, groups: Sequence[str], *, scope: Scope, normalise: bool
) -> AngularMean:
    """The cohort's model under angular weighting, as a delta from the base.

    Memory: one float64 vector of the model and one client's update, whatever the size of the cohort.

    Args:
        reduction: with the `groups` collected.
        spec: of the model.
        groups: which groups to weigh; the others keep the delta they were reduced to.
        scope: one cosine per tensor, or one per client over all of `groups`.
        normalise: divide by Σ_k δ_k instead of by the number of clients (ours, not in L-DAWA); where that sum is not
            positive the plain mean stands.

    """
    tensors = [tensor for tensor in spec.tensors if tensor.group in groups]
    layers = [tensors] if scope == "model" else [[tensor] for tensor in tensors]
    sums = np.zeros(spec.size)
    plain = np.zeros(spec.size) if normalise else None
    totals, cosines = np.zeros(len(layers)), []
    for update in reduction.collected:
        for number, layer in enumerate(layers):
            cosine = _cosine(reduction, spec, update, layer)
            for tensor, _, mine in _values(reduction, spec, update, layer):
                sums[tensor.where] += cosine * mine
                if plain is not None:
                    plain[tensor.where] += mine
            totals[number] += cosine
            cosines.append(cosine)
    delta = reduction.delta.copy()
    clients = len(reduction.collected)
    for number, layer in enumerate(layers):
        for tensor in layer:
            total: NDArray[np.float64] = sums[tensor.where] / clients
            if plain is not None:
                positive = totals[number] > 0
                total = sums[tensor.where] / totals[number] if positive else plain[tensor.where] / clients
            delta[tensor.where] = (total - reduction.base[tensor.where]).astype(np.float32)
    return AngularMean(delta, float(np.mean(cosines)), float(np.min(cosines)))


def _values(
    reduction: Reduction, spec: ParameterSpec, update: CollectedUpdate, layer: Sequence[TensorSpec]
) -> Iterator[tuple[TensorSpec, NDArray[np.float64], NDArray[np.float64]]]:
    """Each tensor of a layer with its global and its client's values."""
    for tensor in layer:
        start = tensor.offset - spec.groups[tensor.group].start
        whole = reduction.base[tensor.where].astype(np.float64)
        yield tensor, whole, whole + update.groups[tensor.group][start : start + tensor.size]


def _cosine(
    reduction: Reduction, spec: ParameterSpec, update: CollectedUpdate, layer: Sequence[TensorSpec]
) -> float:
    """δ of one client and layer; 1 where it is undefined or the layer is a scalar."""
    product = ours = theirs = 0.0
    for tensor, whole, mine in _values(reduction, spec, update, layer):
        if tensor.shape:
            # Sums of products, not BLAS: its order of summation differs between processors.
            product += float((whole * mine).sum())
            ours += float((mine * mine).sum())
            theirs += float((whole * whole).sum())
    length = (ours * theirs) ** 0.5
    return min(1.0, product / length) if length > 0.0 else 1.0
