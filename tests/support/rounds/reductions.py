"""Reductions as a server hook receives them, made by hand from clients' vectors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ssd.method.protocol import CollectedUpdate, Reduction
from ssd.updates.spec import ParameterSpec

Vector = NDArray[np.float32]


def reduction(
    spec: ParameterSpec,
    base: Vector,
    clients: Mapping[str, tuple[int, Vector]],
    *,
    buffers: str = "buffers",
    **changes: object,
) -> Reduction:
    """The cohort of `clients` (name to weight and delta), in name order; everything but `buffers` collected."""
    names = sorted(clients)
    weights = np.array([clients[name][0] for name in names], dtype=np.float64)
    deltas = np.stack([clients[name][1] for name in names]).astype(np.float64)
    mean = (weights @ deltas / weights.sum()).astype(np.float32)
    if buffers in spec.groups:
        where = spec.groups[buffers]
        mean[where] = deltas[:, where].mean(axis=0).astype(np.float32)
    collected = []
    for name in names:
        weight, delta = clients[name]
        groups = {group: delta[where].copy() for group, where in spec.groups.items() if group != buffers}
        for values in groups.values():
            values.flags.writeable = False
        collected.append(CollectedUpdate(client=name, weight=weight, groups=groups, statistics={}))
    for array in (base, mean):
        array.flags.writeable = False
    return Reduction(
        run_seed=1,
        round=1,
        rounds=10,
        base=base,
        delta=mean,
        weight=int(weights.sum()),
        clients=len(names),
        values={},
        statistics={},
        state={},
        artefacts={},
        collected=collected,
        **changes,  # type: ignore[arg-type]  # fields of the record
    )
