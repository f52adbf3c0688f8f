"""Getting a task's declaration, base version and artefacts onto the disk, verified.

A version comes whole, or as the chain of deltas from a version at hand, whichever is fewer bytes. Either way its
model digest is checked before anything is trained from it; a chain that ends in another digest falls back to the
whole version. All heavy work happens on threads.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssd.daemon.logs import event as log_event
from ssd.digest import byte_view
from ssd.updates.codec import Encoding, MalformedUpdate, VectorCodec
from ssd.updates.declaration import Declaration, DeclarationError
from ssd.updates.spec import model_digest
from ssd.updates.version import next_version_from_body
from ssd_wire.messages import Artefact, BlobRef, Delta, ModelVersion, Welcome
from worker.core.backoff import Backoff
from worker.downloads.blobs import Hasher, PartialBlob
from worker.errors import BlobUnavailable, LinkBroken, SessionEnded, TaskFault
from worker.ports import Clock, DataAccess, PreparedTask, Store, Transport
from worker.store.files import storage_faults, write_file

_log = logging.getLogger(__name__)
_MAX_CORRUPT = 5
"""Damaged chunks in a row before the blob is given up."""


SPARED_BYTES = 64 << 20
"""Room that no download takes: the worker's own records need some."""


class Preparation:
    """Fetches and verifies. One instance per worker; one task at a time."""

    def __init__(self, store: Store, transport: Transport, clock: Clock) -> None:
        self._store = store
        self._transport = transport
        self._clock = clock
        self._backoff = Backoff(first=0.2, cap=5.0)
        self._declaration: tuple[str, Declaration] | None = None
        self._turn = asyncio.Lock()
        self._made = 0
        self._verified: set[str] = set()
        """Model digests whose file this process has hashed."""

    async def declaration(self, welcome: Welcome, access: DataAccess) -> Declaration:
        """The run's declaration.

        Raises:
            SessionEnded, TaskFault, StorageFailed: see `prepare`.
        """
        async with self._turn:
            return await self._declared(welcome, access)

    async def _declared(self, welcome: Welcome, access: DataAccess) -> Declaration:
        if self._declaration is None or self._declaration[0] != welcome.declaration_digest:
            path = await self._blob(welcome.declaration, access)
            try:
                declaration = Declaration.from_bytes(path.read_bytes())
            except DeclarationError as error:
                raise TaskFault("declaration_unreadable", str(error), whole_task=True) from error
            if declaration.digest != welcome.declaration_digest:
                raise TaskFault(
                    "declaration_differs", "the declaration's digest is not the run's", whole_task=True
                )
            self._declaration = (welcome.declaration_digest, declaration)
        return self._declaration[1]

    async def prepare(
        self,
        welcome: Welcome,
        access: DataAccess,
        version: ModelVersion,
        artefacts: tuple[Artefact, ...],
        held: Mapping[int, str],
    ) -> PreparedTask:
        """Everything the training process needs.

        Args:
            welcome: the session's; its encodings lay out updates and deltas.
            access: for the data calls.
            version: the base.
            artefacts: of the task.
            held: versions on disk, number -> model digest.

        Raises:
            SessionEnded: the data calls need a new session.
            TaskFault: it cannot be had (`model_unavailable`), or not understood.
            StorageFailed: the disk is full or read-only.
        """
        paths: dict[str, tuple[Path, tuple[int, ...]]] = {}
        # A task and an evaluation may want the same blob: one after the other.
        async with self._turn:
            declaration = await self._declared(welcome, access)
            base = await self._version(declaration, Encoding(welcome.delta_encoding), access, version, held)
            for artefact in artefacts:
                paths[artefact.name] = (await self._blob(artefact.blob, access), artefact.shape)
            await asyncio.to_thread(self._store.clear_partial)
        return PreparedTask(
            declaration=self._store.blob_path(welcome.declaration.digest),
            declaration_digest=welcome.declaration_digest,
            base=base,
            artefacts=paths,
            update_encoding=welcome.update_encoding,
            max_cohort=welcome.max_cohort,
            max_client_weight=welcome.max_client_weight,
            clip_norm=welcome.clip_norm,
        )

    async def _version(
        self,
        declaration: Declaration,
        encoding: Encoding,
        access: DataAccess,
        version: ModelVersion,
        held: Mapping[int, str],
    ) -> Path:
        target = self._store.version_path(version.model_digest)
        if await self._is_good(declaration, version.model_digest):
            return target
        start, steps = cheapest(version, held)
        if steps and await self._is_good(declaration, held[start]):
            if await self._follow(declaration, encoding, access, held[start], steps, target):
                self._verified.add(version.model_digest)
                await asyncio.to_thread(self._store.add_version, version.number, version.model_digest)
                return target
            log_event(_log, logging.WARNING, "delta_chain_differs", version=version.number, base=start)
        await self._whole(declaration, access, version, target)
        self._verified.add(version.model_digest)
        await asyncio.to_thread(self._store.add_version, version.number, version.model_digest)
        return target

    async def _whole(
        self, declaration: Declaration, access: DataAccess, version: ModelVersion, target: Path
    ) -> None:
        """Fetch the full version; its model digest is taken while it arrives."""
        if version.full.size != 4 * declaration.spec.size:
            raise TaskFault("model_unavailable", "the version's size is not the spec's", whole_task=True)
        start = hashlib.sha256(bytes.fromhex(declaration.spec.digest))
        sink = self._sink("version", version.full, check_chunks=False, running=start)
        try:
            await self._fill(sink, version.full, access)
            corrupt = 0
            while sink.digest() != version.model_digest:
                corrupt += 1
                await self._repair([(sink, version.full)], access, corrupt)
        finally:
            sink.close()
        with storage_faults(target.parent):
            sink.path.replace(target)

    async def _repair(
        self, sinks: Sequence[tuple[PartialBlob, BlobRef]], access: DataAccess, corrupt: int
    ) -> None:
        """Fetch damaged chunks again.

        Raises:
            TaskFault: nothing is damaged (so the digest itself is wrong), or time and again something is.
        """
        damaged = [pair for pair in sinks if await asyncio.to_thread(pair[0].find_damage)]
        if not damaged or corrupt > _MAX_CORRUPT:
            what = "arrives damaged time and again" if damaged else "has a wrong model digest"
            raise TaskFault("model_unavailable", f"the version {what}", whole_task=True)
        for sink, blob in damaged:
            log_event(_log, logging.WARNING, "chunk_damaged", blob=blob.digest[:16], offset=sink.received)
            await self._fill(sink, blob, access)

    async def _is_good(self, declaration: Declaration, digest: str) -> bool:
        """Whether the version is on disk; what an earlier process left there is hashed once."""
        path = self._store.version_path(digest)
        if digest in self._verified and path.exists():
            return True
        if not path.exists() or await asyncio.to_thread(_file_model_digest, declaration, path) != digest:
            return False
        self._verified.add(digest)
        return True

    async def _follow(
        self,
        declaration: Declaration,
        encoding: Encoding,
        access: DataAccess,
        base: str,
        steps: tuple[Delta, ...],
        target: Path,
    ) -> bool:
        """Make `target` from a version at hand and deltas; False if the digest comes out wrong."""
        encodings = {
            group.name: encoding if group.compress else Encoding.FLOAT32 for group in declaration.groups
        }
        codec = VectorCodec(declaration.spec, encodings)
        sinks = [(self._sink("delta", step.blob, check_chunks=False), step.blob) for step in steps]
        try:
            for sink, blob in sinks:
                await self._fill(sink, blob, access)
            corrupt = 0
            paths = [sink.path for sink, _ in sinks]
            while (
                vector := await asyncio.to_thread(
                    _apply, codec, self._store.version_path(base), paths, steps[-1].model_digest
                )
            ) is None:
                corrupt += 1
                try:
                    await self._repair(sinks, access, corrupt)
                except TaskFault:
                    return False
            await asyncio.to_thread(self._write_version, vector, target)
            return True
        finally:
            for sink, _ in sinks:
                sink.close()
                await asyncio.to_thread(self._store.discard_file, "delta", sink.path)

    def _write_version(self, vector: NDArray[np.float32], target: Path) -> None:
        self._made += 1
        # A cancelled preparation's thread may still be writing: never two writers to one name.
        made = target.with_name(f"{target.name}.{self._made}.part")
        self._store.take_spare("version", vector.nbytes, made)
        with storage_faults(target.parent):
            write_file(made, byte_view(vector))
            made.replace(target)

    async def _blob(self, blob: BlobRef, access: DataAccess) -> Path:
        """A declaration or artefact, kept whole under its digest."""
        path = self._store.blob_path(blob.digest)
        if not (path.exists() and path.stat().st_size == blob.size):
            sink = self._sink("blob", blob, check_chunks=True)
            try:
                await self._fill(sink, blob, access)
            finally:
                sink.close()
            with storage_faults(path.parent):
                sink.path.replace(path)
        return path

    def _sink(
        self, purpose: str, blob: BlobRef, *, check_chunks: bool, running: Hasher | None = None
    ) -> PartialBlob:
        path = self._store.partial_path(blob.digest)
        _check_room(blob, path)
        fresh = not path.exists() and self._store.take_spare(purpose, blob.size, path)
        return PartialBlob(blob, path, check_chunks=check_chunks, running=running, fresh=fresh)

    async def _fill(self, sink: PartialBlob, blob: BlobRef, access: DataAccess) -> None:
        """Fetch the rest of a blob, for as long as the session lives."""
        failures = corrupt = 0
        while not sink.complete:
            before = sink.received
            try:
                await self._transport.fetch(access, blob, sink)
            except SessionEnded:
                raise
            except LinkBroken as broken:
                failures = 1 if sink.received > before else failures + 1
                corrupt = corrupt + 1 if broken.reason == "corrupt_chunk" else 0
                log_event(_log, logging.WARNING, "fetch_broken", reason=broken.reason, detail=broken.detail)
                if corrupt > _MAX_CORRUPT:
                    raise TaskFault("model_unavailable", str(broken), whole_task=True) from broken
                await self._clock.sleep(self._backoff.seconds(failures, self._clock.uniform()))
            except BlobUnavailable as error:
                raise TaskFault("model_unavailable", str(error), whole_task=True) from error


def cheapest(version: ModelVersion, held: Mapping[int, str]) -> tuple[int, tuple[Delta, ...]]:
    """The version at hand to start from and the deltas to fetch; no deltas: the whole version is fewer bytes."""
    for start in sorted(held, reverse=True):
        steps = tuple(step for step in version.deltas if step.number > start)
        known = {step.number: step.model_digest for step in version.deltas}
        reaches = len(steps) == version.number - start and steps != ()
        if not reaches or known.get(start, held[start]) != held[start]:
            continue
        if sum(step.blob.size for step in steps) < version.full.size:
            return start, steps
        break
    return version.number, ()


def _check_room(blob: BlobRef, path: Path) -> None:
    """Refuse what would fill the disk before a byte of it is fetched.

    Raises:
        TaskFault: there is less room than the coordinator says the blob needs.
        StorageFailed: the disk does not say how much there is.
    """
    with storage_faults(path.parent):
        free = shutil.disk_usage(path.parent).free
        have = path.stat().st_size if path.exists() else 0
    if blob.size - have > free - SPARED_BYTES:
        detail = f"the coordinator sends {blob.size} bytes, and {free} are free where {SPARED_BYTES} stay so"
        raise TaskFault("model_unavailable", detail, whole_task=True)


def _file_model_digest(declaration: Declaration, path: Path) -> str:
    """The model digest of a version file; empty if the file is no such vector."""
    if path.stat().st_size != 4 * declaration.spec.size:
        return ""
    return model_digest(declaration.spec, _map(path, declaration.spec.size))


def _apply(codec: VectorCodec, base: Path, bodies: list[Path], digest: str) -> NDArray[np.float32] | None:
    """Base + every decoded body in turn, if the result has the model digest."""
    out = np.empty(codec.spec.size, np.float32)
    vector = _map(base, codec.spec.size)
    try:
        for body in bodies:
            vector = next_version_from_body(codec, vector, np.memmap(body, np.uint8, mode="r"), out)
    except MalformedUpdate as error:
        log_event(_log, logging.WARNING, "delta_malformed", detail=str(error))
        return None
    return out if model_digest(codec.spec, out) == digest else None


def _map(path: Path, size: int) -> NDArray[np.float32]:
    return np.memmap(path, np.dtype("<f4"), mode="r", shape=(size,))
