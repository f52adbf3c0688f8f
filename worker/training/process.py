"""The parent's side of the training process. `worker.ports.Trainer`.

The child is a fresh interpreter (nothing is forked once grpc is imported, nothing is pickled), started with the first
job and kept between rounds. A job is stopped politely first (the method's next progress call raises), and by SIGKILL
when that takes too long. A child that dies costs the client it was training, nothing else: the next job starts
another one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ssd.daemon.child_process import environment, python
from ssd.daemon.logs import event as log_event
from ssd_wire.messages import Evaluate, TaskClient, Train, UpdateKey
from worker.core import events
from worker.core.finished import Finished
from worker.ports import Post, PreparedTask, Store

_log = logging.getLogger(__name__)
_MAX_LINE_BYTES = 64 << 20
Json = Any


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerSettings:
    """What the child is told at its start."""

    device: str = "auto"
    methods: Mapping[str, str] | None = None
    """Method name -> the operator's own file."""
    data: Mapping[str, Json] | None = None
    max_open_clients: int = 64
    log_level: str = "info"
    log_format: str = "auto"
    stop_seconds: float = 2.0
    """How long a job may take to stop politely."""


@dataclass(slots=True)
class _Job:
    number: int
    started: float
    key: UpdateKey | None = None
    version: int | None = None
    on_clients: bool = False


class ProcessTrainer:
    """Runs one child process. Events go to `post`, a running client's progress to `progress(key, step, steps, s)`."""

    def __init__(
        self,
        settings: TrainerSettings,
        store: Store,
        post: Post,
        progress: Callable[[UpdateKey, int, int, float], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._post = post
        self._progress = progress
        self._child: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.Task[None] | None = None
        self._stopper: asyncio.Task[None] | None = None
        self._jobs = 0
        self._job: _Job | None = None
        self._stopping = False
        self._device_fault = ""
        self._busy = 0.0
        self._body_size = 0
        self.device = "cuda" if settings.device.startswith("cuda") else "cpu"
        self.device_memory = 0
        self.device_memory_used = 0

    def busy_seconds(self) -> float:
        """Seconds the child has been busy, the present job included."""
        return self._busy + (time.monotonic() - self._job.started if self._job is not None else 0.0)

    async def train(self, task: Train, client: TaskClient, prepared: PreparedTask) -> None:
        """Train one client."""
        key = task.key(client.client)
        body = self._store.body_path(key)
        # The child writes beside the final name and renames; all updates of a run have one length.
        self._store.take_spare("body", self._body_size, body.with_name(f"{body.name}.part"))
        state = self._store.state_path(client.client)
        order = {
            "do": "train",
            "client": client.client,
            "round": task.round,
            "rounds": task.rounds,
            "run_seed": task.run_seed,
            "values": dict(task.values),
            "threads": task.threads,
            "quality": task.quality,
            "expected_clients": task.expected_clients,
            "scaling": None if client.scaling is None else client.scaling.to_json(),
            "state": None if state is None else str(state),
            "state_out": str(self._store.pending_state_path(key)),
            "body_out": str(body),
            "prepared": _prepared(prepared),
        }
        await self._start(order, key=key)

    async def evaluate(self, version: int, run_seed: int, prepared: PreparedTask) -> None:
        """Measure a version."""
        order = {"do": "evaluate", "version": version, "run_seed": run_seed, "prepared": _prepared(prepared)}
        await self._start(order, version=version)

    async def evaluate_clients(self, evaluate: Evaluate, prepared: PreparedTask) -> None:
        """Measure a version on the clients' own test images, in their current states."""
        states = {task.client: self._store.state_path(task.client) for task in evaluate.clients}
        order = {
            "do": "evaluate_clients",
            "version": evaluate.version.number,
            "run_seed": evaluate.run_seed,
            "threads": evaluate.threads,
            "clients": [
                {
                    "client": task.client,
                    "scaling": None if task.scaling is None else task.scaling.to_json(),
                    "state": None if states[task.client] is None else str(states[task.client]),
                }
                for task in evaluate.clients
            ],
            "prepared": _prepared(prepared),
        }
        await self._start(order, version=evaluate.version.number, on_clients=True)

    async def stop(self) -> None:
        """End the job under way; answered by `TrainingStopped`."""
        if self._job is None:
            self._post(events.TrainingStopped())
            return
        self._stopping = True
        self._stopper = asyncio.create_task(self._kill_later(self._job.number))
        await self._send({"do": "stop", "job": self._job.number})

    async def close(self) -> None:
        """Kill the child."""
        if self._stopper is not None:
            self._stopper.cancel()
        if self._reader is not None:
            self._reader.cancel()
        if self._writer is not None:
            self._writer.close()
        await self._kill()

    async def _start(
        self,
        order: dict[str, Json],
        *,
        key: UpdateKey | None = None,
        version: int | None = None,
        on_clients: bool = False,
    ) -> None:
        self._jobs += 1
        self._job = _Job(self._jobs, time.monotonic(), key, version, on_clients)
        if self._child is None:
            try:
                await self._spawn()
            except OSError as error:
                job, self._job = self._job, None
                self._fail(
                    job, "training_process_died", f"it could not be started: {error}", whole_task=False
                )
                return
        await self._send({**order, "job": self._jobs})

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._child = child = await asyncio.create_subprocess_exec(
                *python("-m", "worker.training.child", str(os.getpid()), str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=environment(),
            )
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=_MAX_LINE_BYTES)
        self._reader = asyncio.create_task(self._read(reader, child))
        settings = self._settings
        await self._send(
            {
                "do": "configure",
                "device": settings.device,
                "methods": dict(settings.methods or {}),
                "data": settings.data,
                "max_open_clients": settings.max_open_clients,
                "log_level": settings.log_level,
                "log_format": settings.log_format,
            }
        )
        log_event(_log, logging.INFO, "training_process_started", pid=child.pid)

    async def _send(self, order: Mapping[str, Json]) -> None:
        """To the child. One that died at any moment is not told: `_read` sees its end, and reports the job as failed."""
        if self._writer is not None:
            self._writer.write(json.dumps(order).encode() + b"\n")
            with suppress(ConnectionError):
                await self._writer.drain()

    async def _read(self, reader: asyncio.StreamReader, child: asyncio.subprocess.Process) -> None:
        with suppress(ConnectionError):
            while line := await reader.readline():
                # A child killed in the middle of a report leaves half a line: its end tells enough.
                if line.endswith(b"\n"):
                    self._report(json.loads(line))
        code = await child.wait()
        self._child = self._writer = None
        job, self._job = self._job, None
        if job is None:
            log_event(_log, logging.WARNING, "training_process_ended", exit_code=code)
            return
        self._busy += time.monotonic() - job.started
        if self._stopping:
            self._end_stop()
            return
        if self._device_fault:
            self._fail(job, "device_fault", self._device_fault, whole_task=False)
            self._device_fault = ""
            return
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        log_event(_log, logging.ERROR, "training_process_died", how=how)
        self._fail(job, "training_process_died", f"the training process died ({how})", whole_task=False)

    def _report(self, report: Mapping[str, Json]) -> None:
        job = self._job
        self.device_memory = report.get("device_memory", self.device_memory)
        self.device_memory_used = report.get("device_memory_used", self.device_memory_used)
        self.device = str(report.get("device", self.device)).partition(":")[0]
        if job is None or report["job"] != job.number:
            return
        if report.get("reason") == "device_fault":
            # The child ends itself now; the next client must not be given to it.
            self._device_fault = report["detail"]
            return
        if report["event"] == "progress":
            if job.key is not None:
                self._progress(job.key, report["step"], report["steps"], report["seconds"])
            return
        self._job = None
        self._busy += time.monotonic() - job.started
        match report["event"]:
            case "finished":
                assert job.key is not None  # only a training job finishes
                finished = _finished(job.key, report)
                self._body_size = finished.body_size
                self._post(events.ClientTrained(finished=finished))
            case "evaluated":
                assert job.version is not None  # only an evaluation is evaluated
                clients = tuple(report["clients"]) if job.on_clients else None
                self._post(
                    events.EvaluationEnded(version=job.version, values=report["values"], clients=clients)
                )
            case "failed" if not self._stopping:
                self._fail(job, report["reason"], report["detail"], whole_task=report["whole_task"])
        if self._stopping:
            self._end_stop()

    def _fail(self, job: _Job, reason: str, detail: str, *, whole_task: bool) -> None:
        if job.key is not None:
            self._post(events.ClientFailed(key=job.key, reason=reason, detail=detail, whole_task=whole_task))
        elif job.version is not None:
            nobody = () if job.on_clients else None
            self._post(
                events.EvaluationEnded(
                    version=job.version, error=f"{reason}: {detail}", reason=reason, clients=nobody
                )
            )

    def _end_stop(self) -> None:
        self._stopping = False
        if self._stopper is not None:
            self._stopper.cancel()
            self._stopper = None
        self._post(events.TrainingStopped())

    async def _kill_later(self, number: int) -> None:
        await asyncio.sleep(self._settings.stop_seconds)
        if self._job is not None and self._job.number == number:
            log_event(_log, logging.WARNING, "training_process_killed", reason="it did not stop in time")
            await self._kill()

    async def _kill(self) -> None:
        child = self._child
        if child is not None and child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()


def _prepared(task: PreparedTask) -> dict[str, Json]:
    return {
        "declaration": str(task.declaration),
        "declaration_digest": task.declaration_digest,
        "base": str(task.base),
        "artefacts": {name: (str(path), list(shape)) for name, (path, shape) in task.artefacts.items()},
        "update_encoding": task.update_encoding,
        "max_cohort": task.max_cohort,
        "max_client_weight": task.max_client_weight,
        "clip_norm": task.clip_norm,
    }


def _finished(key: UpdateKey, report: Mapping[str, Json]) -> Finished:
    return Finished(
        key=key,
        weight=report["weight"],
        seconds=report["seconds"],
        body_size=report["body_size"],
        chunk_digests=bytes.fromhex(report["chunk_digests"]),
        state_digest=report["state_digest"],
    )
