"""A reduction laid out as files, as the coordinator hands it to the method host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssd.method.protocol import CollectedUpdate, Reduction
from ssd.method_host.npy import npy_bytes
from ssd.updates.declaration import Declaration


def npy(path: Path, array: NDArray[np.generic]) -> dict[str, Any]:
    path.write_bytes(npy_bytes(array))
    return {"path": str(path)}


def raw(path: Path, array: NDArray[np.float32]) -> dict[str, Any]:
    path.write_bytes(array.tobytes())
    return {"path": str(path), "shape": list(array.shape)}


def a_reduction(declaration: Declaration, clients: int = 3, **changes: Any) -> Reduction:
    """A reduction with different numbers everywhere."""
    draw = np.random.default_rng(7)

    def vector(size: int) -> NDArray[np.float32]:
        return draw.standard_normal(size, np.float32) / np.float32(100)

    spec = declaration.spec
    collected = [
        CollectedUpdate(
            client=f"c{number}",
            weight=number + 1,
            groups={
                group.name: vector(spec.groups[group.name].stop - spec.groups[group.name].start)
                for group in declaration.groups
                if group.collect
            },
            statistics={
                each.name: draw.standard_normal(each.shape) for each in declaration.statistics if each.collect
            },
        )
        for number in range(clients)
    ]
    fields: dict[str, Any] = {
        "run_seed": 5,
        "round": 2,
        "rounds": 4,
        "base": vector(spec.size),
        "delta": vector(spec.size),
        "weight": 10,
        "clients": clients,
        "values": {"lr": 0.5},
        "statistics": {each.name: draw.standard_normal(each.shape) for each in declaration.statistics},
        "state": {"calls": np.array(1, np.int64), "chain": np.arange(32, dtype=np.uint8)},
        "artefacts": {"drift": vector(32).reshape(4, 8)},
        "collected": collected if declaration.collects else [],
    }
    return Reduction(**{**fields, **changes})


def as_request(
    declaration: Declaration, reduction: Reduction, folder: Path, method: str = "synthetic"
) -> dict[str, Any]:
    """The host's request for a reduction, with its files below `folder`."""
    given, out = folder / "in", folder / "out"
    given.mkdir(parents=True, exist_ok=True)
    out.mkdir(exist_ok=True)
    groups = [group.name for group in declaration.groups if group.collect]
    statistics = [each.name for each in declaration.statistics if each.collect]
    return {
        "op": "after_reduce",
        "method": method,
        "config": dict(declaration.config),
        "seed": reduction.run_seed,
        "round": reduction.round,
        "rounds": reduction.rounds,
        "weight": reduction.weight,
        "clients": reduction.clients,
        "values": dict(reduction.values),
        "base": raw(given / "base.f32", reduction.base),
        "delta": npy(given / "delta.npy", reduction.delta),
        "statistics": npy(
            given / "statistics.npy",
            np.concatenate(
                [
                    np.empty(0),
                    *(reduction.statistics[each.name].reshape(-1) for each in declaration.statistics),
                ]
            ),
        ),
        "state": {name: npy(given / f"s{name}", array) for name, array in reduction.state.items()},
        "artefacts": {name: raw(given / f"a{name}", array) for name, array in reduction.artefacts.items()},
        "collected": [
            {
                "client": each.client,
                "weight": each.weight,
                "values": npy(
                    given / f"{each.client}.values",
                    np.concatenate([np.empty(0, np.float32), *(each.groups[name] for name in groups)]),
                ),
                "statistics": npy(
                    given / f"{each.client}.statistics",
                    np.concatenate(
                        [np.empty(0), *(each.statistics[name].reshape(-1) for name in statistics)]
                    ),
                ),
            }
            for each in reduction.collected
        ],
        "out": str(out),
    }
