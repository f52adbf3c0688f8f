"""The training process: `python -m worker.training.child FD`, started and fed by `worker.training.process`.

It speaks one JSON object per line over the socket FD: orders in, reports out. Arrays travel as files: the base
version is mapped, an update's body and the client's next state are written beside their final name and renamed.
It is the only process of a worker that may import torch, and it stays warm between rounds.

    in   configure   device, methods, data, max_open_clients                                    (first, once)
         train       job, task, client, prepared files, where to write                          -> finished | failed
        train_together  likewise, with clients: one after the other, added up     -> fold and failed now and then, ended
        end         job of `train_together`: write the fold down now, end after the client under way
         evaluate    job, version, run_seed, prepared files                                     -> evaluated
         evaluate_clients  likewise, with clients and their states                              -> evaluated
         stop        job: give up at the next step                                              -> stopped
    out  finished    weight, seconds, body_size, chunk_digests, state_digest
         failed      reason, detail, whole_task; of `train_together`: client
         fold        name and size of the file written, name of the one before, who is in it
         ended       of `train_together`
         progress    client, step, steps, seconds
         evaluated   values; of clients: which ones
         stopped

It ends when the socket does (its parent died), at once, whatever it is doing.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from ssd.daemon.logs import configure as configure_logs
from ssd.daemon.logs import event as log_event
from worker.errors import TaskFault
from worker.training.client_data import ClientData
from worker.training.evaluate import evaluate, evaluate_clients
from worker.training.together import GrowingFold, Report
from worker.training.train import MethodCache, describe_failure, train, train_client

_log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
_PROGRESS_SECONDS = 0.5
LOOKS_AGAIN = 2
"""Times a job is begun anew because a folder changed under it."""
Json = Any


class Stopped(BaseException):
    """The parent gave up on the job; not an `Exception`, so that no method can swallow it."""


class TrainingProcess:
    """The loop over orders. One thread works; another reads orders, so that `stop` is seen while it works."""

    def __init__(self, connection: socket.socket) -> None:
        self._out = connection.makefile("wb", buffering=0)
        self._in = connection.makefile("rb")
        self._orders: queue.SimpleQueue[Mapping[str, Json]] = queue.SimpleQueue()
        self._stopped_job = self._ending_job = 0
        self._sending = threading.Lock()
        self._methods = MethodCache({})
        self._data = ClientData(None, 1)
        self._device = "cpu"

    def run(self) -> None:
        """Work until the socket ends."""
        threading.Thread(target=self._read_orders, args=(self._in,), daemon=True).start()
        while True:
            order = self._orders.get()
            match order["do"]:
                case "configure":
                    self._configure(order)
                case "train":
                    self._guarded(order, self._train)
                case "train_together":
                    self._train_together(order)
                case "evaluate":
                    self._guarded(order, self._evaluate)
                case "evaluate_clients":
                    self._guarded(order, self._evaluate_clients)

    def _read_orders(self, stream: BinaryIO) -> None:
        for line in stream:
            order = json.loads(line)
            if order["do"] == "stop":
                self._stopped_job = order["job"]
            elif order["do"] == "end":
                self._ending_job = order["job"]
            self._orders.put(order)
        os._exit(0)

    def _configure(self, order: Mapping[str, Json]) -> None:
        configure_logs(order["log_level"], order["log_format"])
        self._methods = MethodCache(order["methods"])
        self._data = ClientData(order["data"], order["max_open_clients"])
        self._device = order["device"]

    def _guarded(self, order: Mapping[str, Json], work: Any) -> None:
        job = order["job"]
        try:
            report = self._with_living_folders(order, work)
        except Stopped:
            report = {"event": "stopped"}
        except Exception as error:  # noqa: BLE001  # whatever a method raises becomes a report
            report = _failure(error)
        self._send({"job": job, **report, **self._methods.memory()})
        if report.get("reason") == "device_fault":
            # The device's context is spoiled for this process; the parent starts another.
            os._exit(70)

    def _train_together(self, order: Mapping[str, Json]) -> None:
        """Train clients one after the other and report folds of them; one that fails is left out."""
        job = order["job"]

        def report(said: dict[str, Json]) -> None:
            self._send({"job": job, **said, **self._methods.memory()})

        fold = GrowingFold(order["fold_out"], report)
        try:
            fault = self._train_each(order, fold, report)
            self._close(fold, report)
        except Stopped:
            self._close(fold, report)
            report({"event": "stopped"})
            return
        if fault:
            report(fault)
        if fault.get("reason") == "device_fault":
            os._exit(70)
        report({"event": "ended"})

    def _train_each(self, order: Mapping[str, Json], fold: GrowingFold, report: Report) -> dict[str, Json]:
        """Returns the report of the failure that ended the job early, empty without one."""
        job, ended = order["job"], False

        def look() -> None:
            nonlocal ended
            self._check_stopped(job)
            if self._ending_job >= job and not ended:
                ended = True
                self._close(fold, report)

        for client in order["clients"]:
            look()
            if ended:
                break
            one = {**order, **client}

            def work(one: Mapping[str, Json]) -> dict[str, Json]:
                progress = self._reporter(job, one["client"], look)
                fold.add(one, train_client(one, self._methods, self._data, self._device, progress))
                return {}

            try:
                self._with_living_folders(one, work)
            except Exception as error:  # noqa: BLE001  # whatever a method raises becomes a report
                failure = {**_failure(error), "client": client["client"]}
                if failure["whole_task"] or failure["reason"] == "device_fault":
                    return failure
                report(failure)
            if client is not order["clients"][-1]:
                fold.write_if_due()
        return {}

    @staticmethod
    def _close(fold: GrowingFold, report: Report) -> None:
        lost = fold.lost()
        try:
            fold.close()
        except OSError as error:
            for client in lost:
                report({**_failure(error), "client": client})

    def _with_living_folders(self, order: Mapping[str, Json], work: Any) -> dict[str, Json]:
        """`work`, begun anew with what is there now when a folder changed while it was read."""
        for more in range(LOOKS_AGAIN, -1, -1):
            self._check_stopped(order["job"])
            try:
                report: dict[str, Json] = work(order)
                return report
            except Exception as error:
                # By its name: a method without images never imports what raises it.
                if type(error).__name__ != "FolderChanged":
                    raise
                self._data.forget()
                if not more:
                    raise
                log_event(
                    _log, logging.INFO, "folder_changed", client=order.get("client", ""), detail=str(error)
                )
        raise AssertionError  # the last time either returns or raises

    def _train(self, order: Mapping[str, Json]) -> dict[str, Json]:
        job = order["job"]
        progress = self._reporter(job, order["client"], lambda: self._check_stopped(job))
        report = train(order, self._methods, self._data, self._device, progress)
        return {"event": "finished", **report}

    def _evaluate(self, order: Mapping[str, Json]) -> dict[str, Json]:
        return {"event": "evaluated", "values": evaluate(order, self._methods, self._data, self._device)}

    def _evaluate_clients(self, order: Mapping[str, Json]) -> dict[str, Json]:
        def check() -> None:
            self._check_stopped(order["job"])

        values, clients = evaluate_clients(order, self._methods, self._data, self._device, check)
        return {"event": "evaluated", "values": values, "clients": clients}

    def _reporter(self, job: int, client: str, look: Callable[[], None]) -> Any:
        started = time.monotonic()
        last = started

        def progress(step: int, steps: int, _losses: Mapping[str, float]) -> None:
            nonlocal last
            look()
            now = time.monotonic()
            if now - last >= _PROGRESS_SECONDS:
                last = now
                said = {"job": job, "event": "progress", "client": client, "step": step, "steps": steps}
                self._send({**said, "seconds": now - started})

        return progress

    def _check_stopped(self, job: int) -> None:
        if self._stopped_job >= job:
            raise Stopped

    def _send(self, report: Mapping[str, Json]) -> None:
        with self._sending:
            self._out.write(json.dumps(report).encode() + b"\n")


def _failure(error: Exception) -> dict[str, Json]:
    """What the parent is told of a job, or a client of it, that failed."""
    if isinstance(error, TaskFault):
        said = {"reason": error.reason, "detail": error.detail, "whole_task": error.whole_task}
    else:
        log_event(_log, logging.WARNING, "job_failed", error)
        reason, detail = describe_failure(error)
        said = {"reason": reason, "detail": detail, "whole_task": False}
    return {"event": "failed", **said}


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (Linux; elsewhere the socket's end does it)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    """Entry point of the child."""
    parent, descriptor = int(sys.argv[1]), int(sys.argv[2])
    die_with_parent()
    if os.getppid() != parent:  # it died before the line above
        return
    # The terminal's Ctrl-C and its end reach the whole group; the parent decides what becomes of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    TrainingProcess(socket.socket(fileno=descriptor)).run()


if __name__ == "__main__":
    main()
