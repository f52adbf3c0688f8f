"""The server hook inside a commit: lay out its input as files, have the method host run it, keep what it made.

The hook sees the reduced updates of the journaled set (and, if the method collects, each client's values), the base
version and what it left behind in the last commit, and nothing else: the same set gives the same result. A host that
dies is started again and asked again, a few times. Until the commit that follows is durable, nothing a hook made
counts: its blobs are orphans.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coordinator.errors import HookFailed, MethodHostFailed
from coordinator.method_host.collected_updates import Spool
from coordinator.ports.blobs import Blobs
from coordinator.ports.figures import Kind, kind_of
from coordinator.ports.method_host import MethodHost
from coordinator.ports.method_host_files import RawArray, ReductionFiles, ResultFiles
from coordinator.ports.records import RunRecord, VersionRecord
from coordinator.runtime.durable_writes import DurableWrites
from coordinator.store.failures import storage_failed
from coordinator.versions.quality import without_frequencies
from ssd.daemon.logs import event as log_event
from ssd.digest import byte_view
from ssd.method_host.npy import npy_header, read_npy
from ssd.updates.declaration import Declaration
from ssd.updates.fold import FoldPlan, OpenedFold
from ssd_wire.messages import Artefact, BlobRef

log = logging.getLogger(__name__)

SCRATCH_PREFIX = "hook-"
"""Directories in the state directory that hold what a hook reads and writes; removed at start."""
COLLECTED = "collected"
SLOW_SECONDS = 60.0
"""How often the log tells of a hook that is still at it. There is no limit: only a person knows how long one may take."""
TRIES = 3
"""How often a host may die over one hook before the run halts."""
STATE_PREFIX = "hook."
"""Of the hook's entries in a version's server state."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hooked:
    """What a hook made of a reduction. Its blobs are durable; the journal does not know them yet."""

    delta: NDArray[np.float32] | None
    """[n], to be used instead of the reduced delta."""
    state: Mapping[str, BlobRef]
    """By their names in the server state."""
    artefacts: tuple[Artefact, ...]
    metrics: Mapping[str, float]


class HookRunner:
    """Runs the server hook of one run; keeps nothing between commits but the collected values of the attempt."""

    def __init__(
        self,
        *,
        run: RunRecord,
        declaration: Declaration,
        plan: FoldPlan,
        seed: int,
        host: MethodHost,
        blobs: Blobs,
        durability: DurableWrites,
        state_dir: Path,
    ) -> None:
        self._run = run
        self._declaration = declaration
        self._plan = plan
        self._seed = seed
        self._host = host
        self._blobs = blobs
        self._durability = durability
        self._state_dir = state_dir
        self._spool = Spool(state_dir / COLLECTED, plan) if declaration.collects else None

    async def reset(self) -> None:
        """An attempt begins or has ended: nothing is collected."""
        if self._spool is not None:
            await self._durability.write(self._spool.clear)

    async def collect(self, client: str, weight: int, body: NDArray[np.uint8]) -> None:
        """Keep what the hook may see of an accepted update."""
        spool = self._spool
        if spool is not None:
            await self._durability.write(lambda: spool.add(client, weight, body))

    async def run(
        self, opened: OpenedFold, newest: VersionRecord, *, rounds: int, values: Mapping[str, float]
    ) -> Hooked:
        """What the hook makes of `opened`, which is left as it is.

        Args:
            opened: the reduced updates of the journaled set.
            newest: the version the round started from.
            rounds: how many the run plans.
            values: the schedules, resolved for this round.

        Raises:
            HookFailed: the hook failed, or the host died over it again and again. Nothing changed.
            StorageFailed: the medium fails and the daemon is stopping.
        """
        scratch = await self._durability.write(self._scratch)
        telling = asyncio.create_task(_tell_while_slow(newest.number + 1))
        try:
            files = await self._durability.write(
                lambda: self._lay_out(scratch, opened, newest, rounds=rounds, values=values)
            )
            made = await self._durability.insist(lambda: self._ask(files, scratch / "out"))
            return await self._durability.write(lambda: self._keep(made))
        except HookFailed:
            # A corrected method file must be read anew.
            await self._host.close()
            raise
        finally:
            telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await telling
            shutil.rmtree(scratch, ignore_errors=True)

    async def _ask(self, files: ReductionFiles, out: Path) -> ResultFiles:
        method = str(self._run.config["method"]["name"])
        for left in reversed(range(TRIES)):
            try:
                return await self._host.after_reduce(method, self._declaration.config, files, out)
            except MethodHostFailed as error:
                log_event(log, logging.WARNING, "server_hook_lost", round=files.round, detail=str(error))
                if not left:
                    raise HookFailed(
                        f"the server hook of round {files.round} could not be run in {TRIES} tries: {error}."
                        " Every update of the round is kept: put this right, then resume the run"
                    ) from error
        raise AssertionError("unreachable")

    def _scratch(self) -> Path:
        try:
            return Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=self._state_dir))
        except OSError as error:
            raise storage_failed(error, self._state_dir, "making room for the server hook") from error

    def _lay_out(
        self,
        scratch: Path,
        opened: OpenedFold,
        newest: VersionRecord,
        *,
        rounds: int,
        values: Mapping[str, float],
    ) -> ReductionFiles:
        """Write or lend every input; a failed try is begun again from nothing."""
        given = scratch / "in"
        try:
            shutil.rmtree(given, ignore_errors=True)
            given.mkdir()
            (scratch / "out").mkdir(exist_ok=True)
            _write_npy(given / "delta.npy", opened.delta)
            flat = [opened.statistics[each.name].reshape(-1) for each in self._plan.statistics]
            _write_npy(given / "statistics.npy", np.concatenate([np.empty(0), *flat]))
        except OSError as error:
            raise storage_failed(error, given, "writing what the server hook reads") from error
        self._blobs.lend(newest.full.digest, given / "base.f32")
        state: dict[str, Path] = {}
        for name, blob in sorted(newest.server_state.items()):
            if name.startswith(STATE_PREFIX):
                path = given / f"state_{len(state)}.npy"
                self._blobs.lend(blob.digest, path)
                state[name.removeprefix(STATE_PREFIX)] = path
        artefacts: dict[str, RawArray] = {}
        for record in (*without_frequencies(self._run.artefacts), *newest.artefacts):
            path = given / f"artefact_{len(artefacts)}.f32"
            self._blobs.lend(record.blob.digest, path)
            artefacts[record.name] = (path, record.shape)
        return ReductionFiles(
            seed=self._seed,
            round=newest.number + 1,
            rounds=rounds,
            weight=opened.weight,
            clients=opened.clients,
            values=dict(values),
            base=(given / "base.f32", (self._plan.size,)),
            delta=given / "delta.npy",
            statistics=given / "statistics.npy",
            state=state,
            artefacts=artefacts,
            collected=self._spool.entries() if self._spool is not None else (),
        )

    def _keep(self, made: ResultFiles) -> Hooked:
        try:
            delta = None if made.delta is None else np.array(read_npy(made.delta))
        except (OSError, ValueError) as error:
            raise HookFailed(f"what the server hook made cannot be read: {error}") from error
        if delta is not None and (delta.shape != (self._plan.size,) or delta.dtype != np.float32):
            raise HookFailed(f"the server hook's delta is {delta.dtype} {list(delta.shape)}")
        artefacts = tuple(
            Artefact(name=name, blob=self._store(path, 4 * math.prod(shape)), shape=shape)
            for name, (path, shape) in sorted(made.artefacts.items())
        )
        state = {STATE_PREFIX + name: self._store(path, None) for name, path in sorted(made.state.items())}
        means = {each.name.removesuffix("_sum") for each in self._plan.statistics}
        if clash := sorted(name for name in made.metrics if name in means or kind_of(name) is not Kind.LOSS):
            raise HookFailed(f"the server hook's metrics {clash} have the names of figures every version has")
        return Hooked(delta=delta, state=state, artefacts=artefacts, metrics=made.metrics)

    def _store(self, path: Path, nbytes: int | None) -> BlobRef:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise HookFailed(f"what the server hook made cannot be read: {error}") from error
        if nbytes is not None and len(content) != nbytes:
            raise HookFailed(f"{path.name} has {len(content)} bytes, not {nbytes}")
        writer = self._blobs.create()
        try:
            writer.write(content)
            return writer.finish()
        except BaseException:
            writer.discard()
            raise


async def _tell_while_slow(round_number: int) -> None:
    seconds = 0.0
    while True:
        await asyncio.sleep(SLOW_SECONDS)
        seconds += SLOW_SECONDS
        detail = "the round waits for it, and so does every operator command; SIGTERM ends the coordinator and loses nothing"
        log_event(
            log,
            logging.WARNING,
            "server_hook_slow",
            round=round_number,
            seconds=round(seconds),
            detail=detail,
        )


def _write_npy(path: Path, array: NDArray[np.generic]) -> None:
    with path.open("wb") as file:
        file.write(npy_header(array.shape, array.dtype.str))
        file.write(byte_view(array))
