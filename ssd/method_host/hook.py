"""Running a method's server hook on files: what the coordinator and its method host hand each other.

The request names one file for every array. A file is either `.npy` (never with objects in it) or, where a `shape`
stands beside its path, raw little-endian float32. All of them are mapped read-only, and the collected updates are
opened one at a time as the hook looks at them, so that memory does not grow with the cohort. A client's collected
values lie in one flat float32 array, its collected statistics in one flat float64 array, both in declared order.

What a hook returns is checked before a byte of it is written. This module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ssd.files import write_atomically
from ssd.method.protocol import CollectedUpdate, Reduction, ReductionResult, ServerHook
from ssd.method_host.npy import KINDS, npy_bytes, read_npy
from ssd.updates.declaration import Declaration

Json = Any
Vector = NDArray[np.float32]


class HookInputInvalid(ValueError):
    """The request is incomplete, or a file of it is not what the declaration says."""


class HookFailed(RuntimeError):
    """The method's hook raised, or returned what it may not."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one named array lies in a flat one, and its shape."""

    where: slice
    shape: tuple[int, ...]


def statistics_layout(declaration: Declaration, *, collected: bool) -> dict[str, Place]:
    """The places of all statistics, or of the collected ones, in declared order."""
    named = [(each.name, each.shape) for each in declaration.statistics if each.collect or not collected]
    return _layout(named)


def collected_groups_layout(declaration: Declaration) -> dict[str, Place]:
    """The places of the collected groups' values."""
    groups = declaration.spec.groups
    return _layout(
        [
            (group.name, (groups[group.name].stop - groups[group.name].start,))
            for group in declaration.groups
            if group.collect
        ]
    )


def layout_size(layout: Mapping[str, Place]) -> int:
    """How many values the flat array has."""
    return max((place.where.stop for place in layout.values()), default=0)


def _layout(named: Sequence[tuple[str, tuple[int, ...]]]) -> dict[str, Place]:
    places: dict[str, Place] = {}
    start = 0
    for name, shape in named:
        stop = start + math.prod(shape)
        places[name] = Place(slice(start, stop), shape)
        start = stop
    return places


class CollectedFiles(Sequence[CollectedUpdate]):
    """The collected updates of a request: in the order given, each opened when it is asked for."""

    def __init__(self, declaration: Declaration, entries: Sequence[Mapping[str, Json]]) -> None:
        self._entries = entries
        self._groups = collected_groups_layout(declaration)
        self._statistics = statistics_layout(declaration, collected=True)

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> CollectedUpdate: ...

    @overload
    def __getitem__(self, index: slice) -> list[CollectedUpdate]: ...

    def __getitem__(self, index: int | slice) -> CollectedUpdate | list[CollectedUpdate]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        entry = self._entries[index]
        return CollectedUpdate(
            client=str(entry["client"]),
            weight=int(entry["weight"]),
            groups=_split(_array(entry["values"], "<f4"), self._groups, "collected values"),
            statistics=_split(_array(entry["statistics"], "<f8"), self._statistics, "collected statistics"),
        )


def read_reduction(declaration: Declaration, request: Mapping[str, Json]) -> Reduction:
    """The reduction a request describes.

    Raises:
        HookInputInvalid: a field is missing, or a file is not what the declaration says.
    """
    size = declaration.spec.size
    try:
        collected = list(request["collected"])
        clients = [str(entry["client"]) for entry in collected]
        reduction = Reduction(
            run_seed=int(request["seed"]),
            round=int(request["round"]),
            rounds=int(request["rounds"]),
            base=_vector(request["base"], size, "base"),
            delta=_vector(request["delta"], size, "delta"),
            weight=int(request["weight"]),
            clients=int(request["clients"]),
            values={str(name): float(value) for name, value in request["values"].items()},
            statistics=_split(
                _array(request["statistics"], "<f8"),
                statistics_layout(declaration, collected=False),
                "statistics",
            ),
            state={name: _array(reference) for name, reference in request["state"].items()},
            artefacts={name: _array(reference, "<f4") for name, reference in request["artefacts"].items()},
            collected=CollectedFiles(declaration, collected),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise HookInputInvalid(f"the request is incomplete: {error!r}") from error
    if clients != sorted(set(clients)):
        raise HookInputInvalid("the collected updates are not in client-id order")
    if declaration.collects and len(clients) != reduction.clients:
        raise HookInputInvalid(f"{len(clients)} collected updates of a cohort of {reduction.clients}")
    return reduction


def call_hook(hook: ServerHook, declaration: Declaration, reduction: Reduction) -> ReductionResult:
    """The hook's result, checked.

    Raises:
        HookFailed: the hook raised or its result is not what was declared; names the method.
        HookInputInvalid: a collected update that the hook opened is not what the declaration says.
    """
    try:
        result = hook.after_reduce(reduction)
    except HookInputInvalid:
        raise
    except Exception as error:
        raise HookFailed(
            f"the server hook of method {declaration.method} failed in round {reduction.round}:"
            f" {type(error).__name__}: {error}"
        ) from error
    problems = list(_problems(result, declaration))
    if problems:
        raise HookFailed(
            f"the server hook of method {declaration.method} returned in round {reduction.round} what it may not: "
            + "; ".join(problems)
        )
    return result


def write_result(result: ReductionResult, out: Path) -> dict[str, Json]:
    """Write a checked result into `out` and give the reply that names its files.

    Raises:
        OSError: from the file system.
    """
    reply: dict[str, Json] = {
        "delta": None,
        "state": {},
        "artefacts": {},
        "metrics": {name: float(value) for name, value in sorted(result.metrics.items())},
    }
    if result.delta is not None:
        reply["delta"] = _write(out / "delta.npy", result.delta)
    for number, (name, values) in enumerate(sorted(result.state.items())):
        reply["state"][name] = _write(out / f"state_{number}.npy", values)
    for number, (name, made) in enumerate(sorted(result.artefacts.items())):
        path = out / f"artefact_{number}.f32"
        write_atomically(path, np.ascontiguousarray(made, "<f4").tobytes())
        reply["artefacts"][name] = {"path": str(path), "shape": list(made.shape)}
    return reply


def _write(path: Path, array: NDArray[np.generic]) -> dict[str, Json]:
    write_atomically(path, npy_bytes(np.asarray(array)))
    return {"path": str(path)}


def _problems(result: object, declaration: Declaration) -> list[str]:
    if not isinstance(result, ReductionResult):
        return [f"a {type(result).__name__} instead of a ReductionResult"]
    found: list[str] = []
    if result.delta is not None:
        found += _array_problems("its delta", result.delta, (declaration.spec.size,))
    declared = {each.name: each.shape for each in declaration.round_artefacts}
    if set(result.artefacts) != set(declared):
        found.append(f"the artefacts {sorted(result.artefacts)}, declared are {sorted(declared)}")
    else:
        for name, shape in declared.items():
            found += _array_problems(f"artefact {name!r}", result.artefacts[name], shape)
    # A user's own method may return anything at all.
    state: Mapping[Any, Any] = result.state
    for name, value in state.items():
        if not isinstance(name, str) or not name or np.asarray(value).dtype.kind not in KINDS:
            found.append(f"a state entry {name!r} that is no array of numbers")
    metrics: Mapping[Any, Any] = result.metrics
    for name, number in metrics.items():
        if not isinstance(name, str) or not _is_finite(number):
            found.append(f"a metric {name!r} that is no finite number")
    return found


def _is_finite(number: object) -> bool:
    try:
        return isinstance(number, int | float) and math.isfinite(number)
    except OverflowError:  # a whole number beyond every float
        return False


def _array_problems(what: str, value: object, shape: tuple[int, ...]) -> list[str]:
    if not isinstance(value, np.ndarray) or value.dtype != np.float32 or value.shape != shape:
        given = (
            f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        )
        return [f"{what} is {given}, not float32 {list(shape)}"]
    return [] if np.isfinite(value).all() else [f"{what} is not finite"]


def _array(reference: Mapping[str, Json], dtype: str | None = None) -> NDArray[Any]:
    path = Path(reference["path"])
    shape = reference.get("shape")
    try:
        if shape is None:
            found = read_npy(path)
        else:
            wanted = tuple(int(size) for size in shape)
            if path.stat().st_size != 4 * math.prod(wanted):
                raise HookInputInvalid(f"{path} does not hold {list(wanted)} float32 values")
            # An empty file cannot be mapped.
            found = (
                np.memmap(path, "<f4", "r", shape=wanted) if math.prod(wanted) else np.empty(wanted, "<f4")
            )
    except HookInputInvalid:
        raise
    except (OSError, ValueError) as error:
        raise HookInputInvalid(f"{path} cannot be read: {error}") from error
    if dtype is not None and found.dtype != np.dtype(dtype):
        raise HookInputInvalid(f"{path} holds {found.dtype}, not {np.dtype(dtype)}")
    return found


def _vector(reference: Mapping[str, Json], size: int, what: str) -> Vector:
    found = _array(reference, "<f4")
    if found.shape != (size,):
        raise HookInputInvalid(f"the {what} has the shape {found.shape}, not [{size}]")
    return found


def _split(flat: NDArray[Any], layout: Mapping[str, Place], what: str) -> dict[str, NDArray[Any]]:
    if flat.shape != (layout_size(layout),):
        raise HookInputInvalid(f"the {what} have the shape {flat.shape}, not [{layout_size(layout)}]")
    return {name: flat[place.where].reshape(place.shape) for name, place in layout.items()}
