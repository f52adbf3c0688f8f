"""EUA, efficient unified aggregation: one step that agrees with every client (FedU2, CVPR 2024, arXiv 2403.16398).

Every client's update is brought to length 1, the shortest convex combination d of them is found (`min_norm`), and the
global model steps along it. The released code treats 2·(w − w_k)/‖w − w_k‖ as client k's gradient and takes an SGD
step with a server rate η (8 in its example call), so w moves by 2·η·d whatever the clients' own step lengths. That
distance fits one model size only, so unless a rate is given ours is the weighted mean length of the clients' updates:
then equal updates, or a single client, give exactly the average. Clients whose update is zero have no direction and
are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssd.method.protocol import Reduction
from ssd.methods.server_steps.min_norm import min_norm_weights
from ssd.updates.spec import ParameterSpec

BLOCK_BYTES = 1 << 26
"""Memory for a block of coordinates of all clients while inner products are summed."""


@dataclass(frozen=True, slots=True)
class CommonDescent:
    """The result of multi-objective aggregation."""

    delta: NDArray[np.float32]
    """[n] the reduction's delta with the collected groups replaced."""
    agreement: float
    """‖d‖: 1 if all clients moved in one direction, near 0 if they contradict each other."""
    step: float
    """Length of the step."""


def common_descent(
    reduction: Reduction, spec: ParameterSpec, groups: Sequence[str], *, server_rate: float | None
) -> CommonDescent:
    """The cohort's common step, as a delta from the base.

    Memory: `BLOCK_BYTES`, one float64 vector of the model and one client's update. The collected updates are passed
    over once per block and once more for the combination.

    Args:
        reduction: with the `groups` collected.
        spec: of the model.
        groups: which groups to step; the others keep the delta they were reduced to.
        server_rate: η of the released form; None: the weighted mean length of the updates.

    """
    gram = _inner_products(reduction, groups)
    lengths = np.sqrt(gram.diagonal())
    shares = np.array([float(update.weight) for update in reduction.collected])
    moving = np.flatnonzero(lengths > 0.0)
    delta = reduction.delta.copy()
    for group in groups:
        delta[spec.groups[group]] = 0.0
    if not moving.size:
        return CommonDescent(delta, agreement=0.0, step=0.0)
    unit = gram[np.ix_(moving, moving)] / np.outer(lengths[moving], lengths[moving])
    weights = min_norm_weights(unit, shares[moving])
    rate = 2.0 * server_rate if server_rate is not None else float((shares @ lengths) / shares.sum())
    factors = np.zeros(len(shares))
    factors[moving] = rate * weights / lengths[moving]
    sums = {group: np.zeros(spec.groups[group].stop - spec.groups[group].start) for group in groups}
    for factor, update in zip(factors, reduction.collected, strict=True):
        for group in groups:
            sums[group] += factor * update.groups[group]
    for group in groups:
        delta[spec.groups[group]] = sums[group].astype(np.float32)
    agreement = float(np.sqrt(max(0.0, float(weights @ unit @ weights))))
    return CommonDescent(delta, agreement=agreement, step=rate * agreement)


def _inner_products(reduction: Reduction, groups: Sequence[str]) -> NDArray[np.float64]:
    """[K, K] inner products of the clients' updates, summed block by block."""
    clients = len(reduction.collected)
    gram = np.zeros((clients, clients))
    for group, where in _blocks(reduction, groups, max(1, BLOCK_BYTES // (8 * clients))):
        block = np.empty((clients, where.stop - where.start))
        for row, update in zip(block, reduction.collected, strict=True):
            row[:] = update.groups[group][where]
        gram += block @ block.T
    return gram


def _blocks(reduction: Reduction, groups: Sequence[str], length: int) -> Iterator[tuple[str, slice]]:
    first = next(iter(reduction.collected))
    for group in groups:
        size = first.groups[group].size
        for start in range(0, size, length):
            yield group, slice(start, min(start + length, size))
