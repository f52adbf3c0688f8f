"""What the training process does for one order: build the method, run it, write the result down.

torch comes in here, if at all, through the method and the data; this module imports neither.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from ssd.digest import Buffer, byte_view, chunk_digests
from ssd.method.protocol import ClientResult, ClientTask, Method, Progress
from ssd.method.registry import MethodError, built_in, from_file
from ssd.privacy.noise import clip_update
from ssd.privacy.settings import PrivacyRefused
from ssd.scaling import ScalingVector
from ssd.updates.codec import Encoding, NotFinite
from ssd.updates.declaration import Declaration, DeclarationError
from ssd.updates.fold import FoldPlan, encode_update
from ssd.updates.quality_sums import in_declared_form
from worker.errors import TaskFault
from worker.store.files import write_file
from worker.training.client_data import ClientData

Json = Any


class MethodCache:
    """The built method of the present declaration, with its fold plan. `files`: method name -> the operator's file."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files
        self._digest = ""
        self._method: Method | None = None
        self._declaration: Declaration | None = None
        self._plan: tuple[Json, FoldPlan] | None = None
        self._room = bytearray()

    def get(self, path: str, digest: str) -> tuple[Method, Declaration]:
        """The method of a declaration file.

        Raises:
            TaskFault: it cannot be built here, or declares something else than the run does.
        """
        if self._method is None or self._declaration is None or digest != self._digest:
            wanted = Declaration.from_bytes(Path(path).read_bytes())
            try:
                # The name comes from the coordinator. Only this operator's own table makes a file of it.
                own_file = self._files.get(wanted.method)
                method = (
                    built_in(wanted.method, wanted.config)
                    if own_file is None
                    else from_file(Path(own_file), wanted.config)
                )
                # A run that an older release created goes on with that release's quality sums.
                own = method.declare().measuring_as(wanted)
            except Exception as error:
                known = wanted.method in self._files or not isinstance(error, MethodError)
                remedy = (
                    ""
                    if known
                    else "; to run the coordinator's own method here, name your file of it in [methods]"
                )
                raise TaskFault(
                    "method_unavailable", f"method {wanted.method!r}: {error}{remedy}", whole_task=True
                ) from error
            if own.digest != digest:
                raise TaskFault("declaration_differs", _difference(own, wanted), whole_task=True)
            self._method, self._declaration, self._digest, self._plan = method, own, digest, None
        return self._method, self._declaration

    def plan(
        self,
        declaration: Declaration,
        encoding: str,
        max_cohort: int,
        max_client_weight: int,
        *,
        quality: bool,
        clip_norm: float | None = None,
    ) -> FoldPlan:
        """The fold plan of the run's rounds that measure quality, or of the others."""
        key = (declaration.digest, encoding, max_cohort, max_client_weight, quality, clip_norm)
        if self._plan is None or self._plan[0] != key:
            plan = FoldPlan.create(
                declaration,
                Encoding(encoding),
                max_cohort,
                max_client_weight,
                quality=quality,
                clip_norm=clip_norm,
            )
            self._plan = (key, plan)
        return self._plan[1]

    def room(self, plan: FoldPlan) -> bytearray:
        """Where updates are encoded, the same bytes for every client."""
        if len(self._room) != plan.update_nbytes:
            self._room = bytearray(plan.update_nbytes)
        return self._room

    @staticmethod
    def device(wanted: str) -> str:
        """`auto` resolved. Only a method that brought torch along can use more than the processor."""
        torch = sys.modules.get("torch")
        if wanted != "auto":
            return wanted
        return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"

    @staticmethod
    def memory() -> dict[str, int]:
        """Device memory in bytes: all of it, and what this process reserved."""
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_initialized():
            return {}
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        return {"device_memory": total, "device_memory_used": torch.cuda.memory_reserved()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What one client's training gave."""

    plan: FoldPlan
    body: bytearray
    """The update, encoded, in room that the next client's is written to."""
    weight: int
    seconds: float
    state: bytes
    """Its next state, packed; empty: the method keeps none."""
    device: str


def train(
    order: Mapping[str, Json], methods: MethodCache, data: ClientData, device: str, progress: Progress
) -> dict[str, Json]:
    """Train one client and write its update and next state.

    Raises:
        TaskFault: with the reason for the coordinator.
        Exception: whatever the method raises; see `describe_failure`.
    """
    trained = train_client(order, methods, data, device, progress)
    state_digest = write_state(order, trained)
    write_whole(Path(order["body_out"]), trained.body)
    return {
        "weight": trained.weight,
        "seconds": trained.seconds,
        "body_size": len(trained.body),
        "chunk_digests": b"".join(chunk_digests(trained.body)).hex(),
        "state_digest": state_digest,
        "device": trained.device,
    }


def write_state(order: Mapping[str, Json], trained: Trained) -> str:
    """Write a client's next state, if it has one; its hex SHA-256, or an empty text."""
    if not trained.state:
        return ""
    write_whole(Path(order["state_out"]), trained.state)
    return hashlib.sha256(trained.state).hexdigest()


def train_client(
    order: Mapping[str, Json], methods: MethodCache, data: ClientData, device: str, progress: Progress
) -> Trained:
    """Train one client.

    Raises:
        TaskFault: with the reason for the coordinator.
        Exception: whatever the method raises; see `describe_failure`.
    """
    prepared, client = order["prepared"], order["client"]
    method, declaration = methods.get(prepared["declaration"], prepared["declaration_digest"])
    plan = methods.plan(
        declaration,
        prepared["update_encoding"],
        prepared["max_cohort"],
        prepared["max_client_weight"],
        quality=order["quality"],
        clip_norm=prepared["clip_norm"],
    )
    scaling = None if order["scaling"] is None else ScalingVector.from_json(order["scaling"])
    try:
        declaration.check_scaling(scaling, order["expected_clients"])
    except DeclarationError as error:
        raise TaskFault("declaration_differs", f"client {client}: {error}") from error
    images = data.open(client, declaration)
    started = time.monotonic()
    task = ClientTask(
        run_seed=order["run_seed"],
        round=order["round"],
        rounds=order["rounds"],
        client_id=client,
        base=vector(prepared["base"], declaration.spec.size),
        values=order["values"],
        scaling=scaling,
        artefacts={name: array(path, shape) for name, (path, shape) in prepared["artefacts"].items()},
        state=read_state(order["state"], client),
        quality=order["quality"],
        device=methods.device(device),
        threads=order["threads"],
    )
    result = method.train(task, images, progress)
    seconds = time.monotonic() - started
    if plan.clip_norm is not None:
        result = clipped(result, plan.clip_norm)
    if not 1 <= result.weight <= plan.max_client_weight:
        raise TaskFault(
            "weight_out_of_range", f"weight {result.weight}, allowed are 1 to {plan.max_client_weight}"
        )
    statistics = in_declared_form(result.statistics, declaration.quality)
    body = encode_update(plan, result.delta, statistics, methods.room(plan))
    packed = b""
    if result.state:
        arrays = {name: np.ascontiguousarray(values) for name, values in result.state.items()}
        packed = safetensors.numpy.save(arrays, metadata={"client": client, "round": str(order["round"])})
    return Trained(
        plan=plan,
        body=body,
        weight=int(result.weight),
        seconds=seconds,
        state=packed,
        device=task.device,
    )


def clipped(result: ClientResult, clip_norm: float) -> ClientResult:
    """What may leave a client under differential privacy: its update within the norm, counted once, nothing else.

    Raises:
        NotFinite: the update cannot be clipped.
    """
    try:
        delta = clip_update(result.delta, clip_norm)
    except PrivacyRefused as error:
        raise NotFinite(str(error)) from error
    return replace(result, delta=delta, statistics={}, weight=1)


def describe_failure(error: Exception) -> tuple[str, str]:
    """The reason (a stable word) and the sentence for an exception out of training."""
    detail = f"{type(error).__name__}: {error}"[:500]
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}:
        return "storage", detail
    if isinstance(error, NotFinite | ArithmeticError):
        return "training_diverged", detail
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out_of_memory", detail
    if type(error).__name__ in {"DataError", "FolderChanged", "TooFewImages"} or isinstance(
        error, FileNotFoundError
    ):
        return "data_missing", detail
    if type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error):
        return "device_fault", detail
    return "training_failed", detail


def _difference(own: Declaration, wanted: Declaration) -> str:
    mine, theirs = own.to_json(), wanted.to_json()
    keys = sorted(key for key in theirs if mine.get(key) != theirs[key])
    return (
        f"this worker's method {own.method!r} declares other {', '.join(keys) or 'numbers'} than the run's; "
        "run the same program version on coordinator and workers"
    )


def vector(path: str, size: int) -> NDArray[np.float32]:
    """The mapped read-only float32 [size] vector of a version file."""
    return np.memmap(path, np.dtype("<f4"), mode="r", shape=(size,))


def array(path: str, shape: list[int]) -> NDArray[np.float32]:
    """The mapped read-only float32 array of an artefact file."""
    return np.memmap(path, np.dtype("<f4"), mode="r", shape=tuple(shape))


def read_state(path: str | None, client: str) -> dict[str, NDArray[np.generic]]:
    """A client's state by name, empty without a file; raises `TaskFault` (state_unreadable)."""
    if path is None:
        return {}
    try:
        return dict(safetensors.numpy.load_file(path))
    except Exception as error:
        raise TaskFault("state_unreadable", f"the state of {client} cannot be read: {error}") from error


def write_whole(path: Path, content: Buffer) -> None:
    """All or nothing under `path`; not synced, see the store's rules."""
    partial = path.with_name(path.name + ".part")
    try:
        write_file(partial, byte_view(content))
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
