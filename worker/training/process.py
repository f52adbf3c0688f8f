"""The parent's side of the training process. `worker.ports.Trainer`.

The child is a fresh interpreter (nothing is forked once grpc is imported, nothing is pickled), started with the first
job and kept between rounds. A job is stopped politely first (the method's next progress call raises), and by SIGKILL
when that takes too long. A child that dies costs the client it was training, and of clients that it trained together
those it has not written down; the next job starts another one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
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
    together: bool = False
    """The key's client is empty: reports say of whom they are."""


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
        self._device_fault: tuple[str, str] | None = None
        """Whose training spoiled the device, if that is known, and how."""
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
        order = {
            "do": "train",
            "body_out": str(body),
            **task_order(task, prepared),
            **self._client(task, client),
        }
        await self._start(order, key=key)

    async def train_together(
        self, task: Train, clients: Sequence[TaskClient], prepared: PreparedTask
    ) -> None:
        """Train clients one after the other and add them up."""
        order = {
            "do": "train_together",
            # Two jobs of one task never write the same file.
            "fold_out": str(self._store.fold_path(secrets.token_hex(16)).with_suffix("")),
            **task_order(task, prepared),
            "clients": [self._client(task, client) for client in clients],
        }
        await self._start(order, key=task.key(""), together=True)

    async def end_together(self) -> None:
        """End the job after the client under way; what is added up is written now."""
        if self._job is not None and self._job.together:
            await self._send({"do": "end", "job": self._job.number})

    def _client(self, task: Train, client: TaskClient) -> dict[str, Json]:
        state = self._store.state_path(client.client)
        return {
            "client": client.client,
            "scaling": None if client.scaling is None else client.scaling.to_json(),
            "state": None if state is None else str(state),
            "state_out": str(self._store.pending_state_path(task.key(client.client))),
        }

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
        together: bool = False,
    ) -> None:
        self._jobs += 1
        self._job = _Job(self._jobs, time.monotonic(), key, version, on_clients, together)
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
            client, detail = self._device_fault
            self._fail(job, "device_fault", detail, whole_task=False, client=client)
            self._device_fault = None
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
            self._device_fault = (report.get("client", ""), report["detail"])
            return
        if report["event"] == "progress":
            if job.key is not None:
                key = replace(job.key, client=report["client"])
                self._progress(key, report["step"], report["steps"], report["seconds"])
            return
        if job.together and self._of_together(job, report):
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
            case "ended":
                assert job.key is not None  # only such a job ends
                self._post(events.TogetherEnded(key=job.key))
            case "failed" if not self._stopping:
                self._fail(job, report["reason"], report["detail"], whole_task=report["whole_task"])
        if self._stopping:
            self._end_stop()

    def _of_together(self, job: _Job, report: Mapping[str, Json]) -> bool:
        """Pass a report on with which a job of several clients is not over; False: it is another one."""
        assert job.key is not None  # it trains
        if report["event"] == "fold":
            self._post(fold_written(job.key, report))
        elif report["event"] == "failed":
            key = replace(job.key, client=report["client"])
            reason, detail = report["reason"], report["detail"]
            failed = events.ClientFailed(
                key=key, reason=reason, detail=detail, whole_task=report["whole_task"]
            )
            self._post(failed)
        else:
            return False
        return True

    def _fail(self, job: _Job, reason: str, detail: str, *, whole_task: bool, client: str = "") -> None:
        if job.together:
            assert job.key is not None  # it trains
            if client:
                key = replace(job.key, client=client)
                self._post(events.ClientFailed(key=key, reason=reason, detail=detail))
            self._post(events.TogetherEnded(key=job.key, died="" if client else detail))
        elif job.key is not None:
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


def task_order(task: Train, prepared: PreparedTask) -> dict[str, Json]:
    """What an order to train says of the task."""
    return {
        "round": task.round,
        "rounds": task.rounds,
        "run_seed": task.run_seed,
        "values": dict(task.values),
        "threads": task.threads,
        "quality": task.quality,
        "expected_clients": task.expected_clients,
        "prepared": _prepared(prepared),
    }


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


def fold_written(key: UpdateKey, report: Mapping[str, Json]) -> events.FoldWritten:
    """The event of a report that a fold was written; `key` has an empty client."""
    chunks = bytes.fromhex(report["chunk_digests"])
    finished = tuple(
        Finished(
            key=replace(key, client=member["client"]),
            weight=member["weight"],
            seconds=member["seconds"],
            body_size=report["size"],
            chunk_digests=chunks,
            state_digest=member["state_digest"],
            fold=report["name"],
            fold_clients=len(report["members"]),
        )
        for member in report["members"]
    )
    return events.FoldWritten(
        key=key,
        finished=finished,
        added=frozenset(report["added"]),
        before=report["before"],
        closed=report["closed"],
    )


def _finished(key: UpdateKey, report: Mapping[str, Json]) -> Finished:
    return Finished(
        key=key,
        weight=report["weight"],
        seconds=report["seconds"],
        body_size=report["body_size"],
        chunk_digests=bytes.fromhex(report["chunk_digests"]),
        state_digest=report["state_digest"],
    )
