"""From the exact sum of a round to the next model version.

Version v+1 = version v + decode(encode(Δ)), where Δ is the strategy's step plus the rounding residual carried
from the last commit. Everything here is a pure function of (version v, server state, exact sum): the same set
of updates gives the same bytes, whatever the order they came in. Peak memory: four float32 vectors plus one per
moment, whatever the cohort.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.strategies.protocol import Strategy
from coordinator.ports.blobs import Blobs
from ssd.digest import byte_view
from ssd.updates.codec import Encoding, VectorCodec
from ssd.updates.declaration import Declaration
from ssd.updates.fold import OpenedFold
from ssd.updates.spec import ParameterSpec
from ssd.updates.version import next_version_from_body
from ssd_wire.messages import BlobRef

Vector = NDArray[np.float32]
Insist = Callable[[Callable[[], BlobRef]], BlobRef]


def group_encodings(declaration: Declaration, encoding: Encoding) -> dict[str, Encoding]:
    """The encoding of each group: the run's for compressed groups, float32 for the others."""
    return {group.name: encoding if group.compress else Encoding.FLOAT32 for group in declaration.groups}


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeVersion:
    """Blobs and numbers of a new version, not yet committed."""

    model_digest: str
    full: BlobRef
    delta: BlobRef | None
    """None: it would be no smaller than the whole version, so that nobody would fetch it."""
    server_state: Mapping[str, BlobRef]
    statistics: Mapping[str, NDArray[np.float64]]
    step_norm: float
    """L2 norm of the step of the optimised groups."""


class VersionMaker:
    """Makes versions of one run. Holds no state between calls: the server state lives in blobs."""

    def __init__(
        self, declaration: Declaration, strategy: Strategy, delta_encoding: Encoding, blobs: Blobs
    ) -> None:
        self._declaration = declaration
        self._spec: ParameterSpec = declaration.spec
        self._strategy = strategy
        self._blobs = blobs
        self._codec = VectorCodec(self._spec, group_encodings(declaration, delta_encoding))
        # float32 rounds nothing away, so there is nothing to carry.
        self._carries_residual = delta_encoding is not Encoding.FLOAT32

    def make(
        self, opened: OpenedFold, base: BlobRef, server_state: Mapping[str, BlobRef], insist: Insist
    ) -> MadeVersion:
        """The version after `base`. Blobs are durable on return; the journal does not know them yet.

        Args:
            opened: the reduced updates of the accepted set; its vector is used up.
            base: the full blob of the newest version.
            server_state: blobs of the newest version's server state.
            insist: does one write, again and again while the medium refuses it.

        Raises:
            BlobMissing, BlobCorrupt: from the blob store; nothing was committed.
        """
        step = opened.delta
        moments = {name: self._load(server_state.get(name), copy=True) for name in self._strategy.moments}
        residual = self._load(server_state.get("residual"), copy=False) if self._carries_residual else None
        for where in self._optimised().values():
            sliced = {moment: vector[where] for moment, vector in moments.items()}
            step[where] = self._strategy.step(step[where], sliced)
            if residual is not None:
                np.add(step[where], residual[where], out=step[where])
        step_norm = float(np.sqrt(sum(_squared_norm(step[where]) for where in self._optimised().values())))
        encoded = self._codec.encode(step)
        # Hashing and syncing one file leaves a processor free for the next.
        with ThreadPoolExecutor(1, "store-blob") as beside:
            smaller = len(encoded) < 4 * self._spec.size
            stored_delta = beside.submit(self._insist_on, insist, encoded) if smaller else None
            state = {name: self._insist_on(insist, vector) for name, vector in moments.items()}
            if self._carries_residual:
                self._subtract_decoded(step, encoded)
                state["residual"] = self._insist_on(insist, step)
            del step, residual, moments
            vector = self._next(base, encoded)
            digest = hashlib.sha256(bytes.fromhex(self._spec.digest))
            stored_full = beside.submit(self._insist_on, insist, vector)
            digest.update(byte_view(vector))
            delta = None if stored_delta is None else stored_delta.result()
            full = stored_full.result()
        return MadeVersion(
            model_digest=digest.hexdigest(),
            full=full,
            delta=delta,
            server_state=state,
            statistics=opened.statistics,
            step_norm=step_norm,
        )

    def _next(self, base: BlobRef, encoded: bytearray) -> Vector:
        reader = self._blobs.open(base.digest)
        try:
            return next_version_from_body(self._codec, reader.map().view("<f4"), encoded)
        finally:
            reader.close()

    def _subtract_decoded(self, step: Vector, encoded: bytearray) -> None:
        """Leave in `step` what encoding rounded away; nothing of groups outside error feedback."""
        for offset, piece in self._codec.iter_decoded(encoded):
            where = slice(offset, offset + piece.size)
            np.subtract(step[where], piece, out=step[where])
        for group, where in self._spec.groups.items():
            if not self._declaration.group(group).optimise:
                step[where] = 0

    def _optimised(self) -> dict[str, slice]:
        return {
            name: where for name, where in self._spec.groups.items() if self._declaration.group(name).optimise
        }

    def _load(self, blob: BlobRef | None, *, copy: bool) -> Vector:
        if blob is None:
            return np.zeros(self._spec.size, dtype=np.float32)
        reader = self._blobs.open(blob.digest)
        try:
            mapped = reader.map().view("<f4")
            return np.array(mapped, dtype=np.float32) if copy else mapped
        finally:
            reader.close()

    def _insist_on(self, insist: Insist, content: Vector | bytearray) -> BlobRef:
        return insist(lambda: self._store(content))

    def _store(self, content: NDArray[np.generic] | bytes | bytearray) -> BlobRef:
        writer = self._blobs.create()
        try:
            writer.write(byte_view(content))
            return writer.finish()
        except BaseException:
            writer.discard()
            raise


def _squared_norm(values: Vector) -> float:
    """Sum of squares in float64, in fixed pieces so that it does not need a float64 copy of the whole."""
    total = 0.0
    for start in range(0, values.size, 1 << 18):
        piece = values[start : start + (1 << 18)].astype(np.float64)
        total += float(np.dot(piece, piece))
    return total


def mean_statistics(sums: Mapping[str, NDArray[np.float64]], clients: int) -> dict[str, float]:
    """Scalars a person reads, from the summed statistics.

    `<name>_sum` becomes `<name>` = sum / `batches` (if declared, else per client); every other scalar stays the
    sum it is.
    """
    batches = float(sums["batches"]) if "batches" in sums else float(clients)
    scalars: dict[str, float] = {}
    for name, value in sums.items():
        if value.shape != ():
            continue
        if name.endswith("_sum"):
            scalars[name.removesuffix("_sum")] = float(value) / batches if batches else 0.0
        else:
            scalars[name] = float(value)
    return scalars
