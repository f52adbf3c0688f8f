"""`ssd-worker run --devices ...`: one worker process per device, started, watched and stopped together.

The hosted clients are dealt round-robin. Each worker has its own name, state directory and device; one that crashes
is started again after a while, one that was refused for good (exit codes 2 and 3) ends them all. The supervisor
itself neither speaks gRPC nor imports torch.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ssd.daemon.address import parse_address
from ssd.daemon.child_process import environment, python
from ssd.daemon.cli.exit_codes import EXIT_REFUSED, EXIT_USAGE
from ssd.daemon.logs import configure as configure_logs
from ssd.daemon.logs import event as log_event
from worker.config.hosted_clients import hosted_clients
from worker.config.sections import WorkerConfig
from worker.core.backoff import Backoff
from worker.errors import ConfigInvalid

_log = logging.getLogger(__name__)
_STABLE_SECONDS = 60.0
_FINAL_CODES = frozenset({0, EXIT_USAGE, EXIT_REFUSED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One worker process to be."""

    label: str
    """`gpu0`, `cpu1`: the ending of its name and its state directory."""
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def parse_devices(
    text: str, environ: Mapping[str, str], count_gpus: Callable[[], int]
) -> tuple[tuple[str, str], ...]:
    """(label, CUDA_VISIBLE_DEVICES entry or "") of each device: `all`, or a list of GPU numbers and `cpu`.

    Raises:
        ConfigInvalid: no GPU was found, or an item is neither.
    """
    items = [item.strip() for item in text.split(",") if item.strip()]
    if items == ["all"]:
        visible = environ.get("CUDA_VISIBLE_DEVICES")
        items = (
            [str(n) for n in range(count_gpus())] if visible is None else [v for v in visible.split(",") if v]
        )
        if not items:
            raise ConfigInvalid(
                "--devices all: no GPU was found; use --devices cpu,cpu for two processes on the CPU"
            )
    devices = []
    for number, item in enumerate(items):
        if item != "cpu" and not item.isdigit() and not item.startswith(("GPU-", "MIG-")):
            raise ConfigInvalid(f"--devices: {item!r} is neither a GPU's number nor cpu; or write all")
        devices.append((f"{'cpu' if item == 'cpu' else 'gpu'}{number}", "" if item == "cpu" else item))
    if not devices:
        raise ConfigInvalid("--devices names no device")
    return tuple(devices)


def count_gpus() -> int:
    """GPUs of this machine, without importing torch here."""
    for command in (
        ["nvidia-smi", "--list-gpus"],
        python("-c", "import torch\nfor n in range(torch.cuda.device_count()): print(n)"),
    ):
        with suppress(OSError, subprocess.SubprocessError):
            listed = subprocess.run(
                command, capture_output=True, text=True, timeout=60, check=True, env=environment()
            )
            return len(listed.stdout.splitlines())
    return 0


def members(
    config: WorkerConfig, devices: Sequence[tuple[str, str]], base: Sequence[str]
) -> tuple[Member, ...]:
    """The workers to start; a device that gets no client gets no worker.

    Args:
        config: the configuration for all of them together.
        devices: from `parse_devices`.
        base: the arguments of `ssd-worker run` they share.
    """
    clients = hosted_clients(config.data)
    settings = config.worker
    made = []
    for number, (label, gpu) in enumerate(devices):
        own = clients[number :: len(devices)]
        if not own:
            continue
        http = parse_address(settings.http_listen) if settings.http_listen else None
        arguments = (
            *base,
            "--name", f"{settings.name}-{label}",
            "--state-dir", str(settings.state_dir / label),
            "--device", "cuda" if gpu else "cpu",
            "--clients", _client_list(settings.state_dir, label, own),
            # One port each, counting up; a Unix socket cannot be shared either.
            "--http-listen", "" if http is None or http.path else f"{http.host}:{http.port + number}",
        )  # fmt: skip
        if config.transport.identity_dir is not None:
            # Every process is a worker of its own, with a name and a certificate of its own.
            own_identity = config.transport.identity_dir / label
            arguments = (*arguments, "--set", f"transport.identity_dir={own_identity}")
        environment = {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
        made.append(Member(label=label, arguments=arguments, environment=environment))
    if not made:
        raise ConfigInvalid("[data] clients: there is no client to deal out to the devices")
    return tuple(made)


def _client_list(state_dir: Path, label: str, clients: tuple[str, ...]) -> str:
    """`@file`: a hundred thousand clients are too long for a command line."""
    state_dir.mkdir(parents=True, exist_ok=True)
    path = state_dir / f"{label}.clients"
    path.write_text("\n".join(clients) + "\n", encoding="utf-8")
    return f"@{path}"


def supervise(config: WorkerConfig, team: Sequence[Member]) -> int:
    """Run them all until stopped; the exit code: 0, or that of the first one refused for good."""
    configure_logs(config.log.level, config.log.format)
    return asyncio.run(_Supervisor(team).run())


class _Supervisor:
    def __init__(self, team: Sequence[Member]) -> None:
        self._team = team
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._exit_code = 0
        self._backoff = Backoff(first=1.0, cap=30.0)
        self._random = random.SystemRandom()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        loop.add_signal_handler(signal.SIGHUP, log_event, _log, logging.INFO, "hangup_ignored")
        async with asyncio.TaskGroup() as group:
            for member in self._team:
                group.create_task(self._keep_running(member))
        return self._exit_code

    def _on_signal(self) -> None:
        # The first asks them to finish, a second one means now.
        number = signal.SIGKILL if self._stopping.is_set() else signal.SIGTERM
        self._stop(number)

    def _stop(self, number: signal.Signals) -> None:
        self._stopping.set()
        for child in self._children.values():
            with suppress(ProcessLookupError):
                child.send_signal(number)

    async def _keep_running(self, member: Member) -> None:
        failures = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._run_once(member)
            if self._stopping.is_set():
                return
            if code in _FINAL_CODES:
                log_event(_log, logging.ERROR, "worker_ended", worker=member.label, exit_code=code)
                self._exit_code = self._exit_code or code
                self._stop(signal.SIGTERM)
                return
            failures = 1 if time.monotonic() - started > _STABLE_SECONDS else failures + 1
            wait = self._backoff.seconds(failures, self._random.random())
            log_event(
                _log,
                logging.ERROR,
                "worker_crashed",
                worker=member.label,
                exit_code=code,
                restart_seconds=round(wait, 1),
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait)

    async def _run_once(self, member: Member) -> int:
        child = await asyncio.create_subprocess_exec(
            *python("-m", "worker", *member.arguments),
            env=environment(member.environment),
            preexec_fn=_end_with_parent,  # this process has one thread
        )
        self._children[member.label] = child
        log_event(_log, logging.INFO, "worker_started", worker=member.label, pid=child.pid)
        if self._stopping.is_set():
            child.terminate()
        try:
            return await child.wait()
        finally:
            del self._children[member.label]


def _end_with_parent() -> None:
    """In the child before it runs: be told to stop when the supervisor dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
