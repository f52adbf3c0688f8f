"""The method host port over a subprocess: `python -m ssd.method_host.host`, one JSON object per line each way.

The process is started by the first call, kept, and started again after it died; requests go one at a time. There
is no timeout, because building a large model takes as long as it takes, but death is noticed at once. Its standard
error goes to the log line by line. It runs in a session of its own, so that Ctrl-C on a terminal reaches the
coordinator alone.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coordinator.errors import HookFailed, MethodHostFailed, MethodRefused, StorageFailed
from coordinator.ports.method_host import InitialState
from coordinator.ports.method_host_files import RawArray, ReductionFiles, ResultFiles
from ssd.daemon.child_process import environment, python
from ssd.daemon.logs import event

Json = Any
log = logging.getLogger(__name__)

_COMMAND = tuple(python("-m", "ssd.method_host.host"))
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""The number of threads changes bits: the host must give the same ones on every machine."""
_LONGEST_LINE = 64 << 20
"""A declaration names every tensor of the model; asyncio's own limit is 64 KiB."""
_LAST_WORDS = 8
_CLOSE_SECONDS = 5.0
_REFUSALS = frozenset({"bad_config", "bad_input", "no_server_hook"})


class SubprocessMethodHost:
    """`coordinator.ports.method_host.MethodHost` over a subprocess.

    Args:
        command: what to start; speaks the protocol of `ssd.method_host.host`.
    """

    def __init__(self, command: Sequence[str] = _COMMAND) -> None:
        self._command = tuple(command)
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._errors: asyncio.Task[None] | None = None
        self._last_words: collections.deque[str] = collections.deque(maxlen=_LAST_WORDS)

    async def declare(self, method: str, config: Mapping[str, Json]) -> Mapping[str, Json]:
        """See `coordinator.ports.method_host.MethodHost`."""
        reply = await self._ask({"op": "declare", "method": method, "config": dict(config)})
        declaration = reply.get("declaration")
        if not isinstance(declaration, dict):
            raise MethodHostFailed(f"the method host answered declare with {sorted(reply)}")
        return declaration

    async def initial(
        self, method: str, config: Mapping[str, Json], seed: int, warm_start: Path | None, out: Path
    ) -> InitialState:
        """See `coordinator.ports.method_host.MethodHost`. Writes into the directory `out`, which is made if absent."""
        await asyncio.to_thread(out.mkdir, parents=True, exist_ok=True)
        reply = await self._ask(
            {
                "op": "init",
                "method": method,
                "config": dict(config),
                "seed": seed,
                "warm_start": str(warm_start) if warm_start is not None else None,
                "out": str(out),
            }
        )
        try:
            return InitialState(
                vector=Path(reply["vector"]["path"]),
                artefacts={
                    name: (Path(made["path"]), tuple(made["shape"]))
                    for name, made in reply["artefacts"].items()
                },
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise MethodHostFailed(f"the method host answered init with {sorted(reply)}") from error

    async def export(
        self,
        method: str,
        config: Mapping[str, Json],
        vector: Path,
        out: Path,
        metadata: Mapping[str, str],
        part: str | None = None,
    ) -> None:
        """See `coordinator.ports.method_host.MethodHost`."""
        await self._ask(
            {
                "op": "export",
                "method": method,
                "config": dict(config),
                "vector": str(vector),
                "out": str(out),
                "metadata": dict(metadata),
                "part": part,
            }
        )

    async def after_reduce(
        self, method: str, config: Mapping[str, Json], files: ReductionFiles, out: Path
    ) -> ResultFiles:
        """See `coordinator.ports.method_host.MethodHost`."""
        reply = await self._ask(
            {
                "op": "after_reduce",
                "method": method,
                "config": dict(config),
                "seed": files.seed,
                "round": files.round,
                "rounds": files.rounds,
                "weight": files.weight,
                "clients": files.clients,
                "values": dict(files.values),
                "base": _raw(files.base),
                "delta": _npy(files.delta),
                "statistics": _npy(files.statistics),
                "state": {name: _npy(path) for name, path in files.state.items()},
                "artefacts": {name: _raw(array) for name, array in files.artefacts.items()},
                "collected": [
                    {
                        "client": each.client,
                        "weight": each.weight,
                        "values": _npy(each.values),
                        "statistics": _npy(each.statistics),
                    }
                    for each in files.collected
                ],
                "out": str(out),
            }
        )
        try:
            return ResultFiles(
                delta=None if reply["delta"] is None else Path(reply["delta"]["path"]),
                state={name: Path(made["path"]) for name, made in reply["state"].items()},
                artefacts={
                    name: (Path(made["path"]), tuple(made["shape"]))
                    for name, made in reply["artefacts"].items()
                },
                metrics={name: float(value) for name, value in reply["metrics"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MethodHostFailed(f"the method host answered after_reduce with {sorted(reply)}") from error

    async def close(self) -> None:
        """See `coordinator.ports.method_host.MethodHost`. Idempotent; a later call would start the host again."""
        async with self._lock:
            process = self._process
            if process is None:
                return
            if process.returncode is None and process.stdin is not None:
                with contextlib.suppress(ConnectionError):
                    process.stdin.write(b'{"op": "shutdown"}\n')
                    await process.stdin.drain()
                process.stdin.close()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), _CLOSE_SECONDS)
            await self._reap()

    async def _ask(self, request: Mapping[str, Json]) -> dict[str, Json]:
        reply = await self._exchange(request)
        refusal = reply.get("error")
        if not isinstance(refusal, dict):
            return reply
        code, message = refusal.get("code"), str(refusal.get("message"))
        if code in _REFUSALS:
            raise MethodRefused(message)
        if code == "hook_failed":
            raise HookFailed(message)
        if code == "storage":
            raise StorageFailed(message)
        raise MethodHostFailed(f"the method host failed in {request['op']} ({code}): {message}")

    async def _exchange(self, request: Mapping[str, Json]) -> dict[str, Json]:
        """The reply to one request, an error reply or not."""
        async with self._lock:
            process = await self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                with contextlib.suppress(ConnectionError):
                    # A dead process shows as the end of its output below.
                    process.stdin.write(json.dumps(request, allow_nan=False).encode() + b"\n")
                    await process.stdin.drain()
                line = await process.stdout.readline()
                reply = json.loads(line) if line.endswith(b"\n") else None
            except ValueError as error:
                await self._reap()
                raise MethodHostFailed(
                    f"the method host wrote something that is no reply: {error}"
                ) from error
            except BaseException:
                # Given up half-way: the answer that is still coming must not meet the next request.
                await asyncio.shield(self._reap())
                raise
            if not isinstance(reply, dict):
                raise MethodHostFailed(await self._obituary(str(request["op"])))
            return reply

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        await self._reap()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_LONGEST_LINE,
                start_new_session=True,
                env=environment(_ONE_THREAD),
            )
        except OSError as error:
            raise MethodHostFailed(f"the method host cannot be started: {error}") from error
        self._process = process
        self._last_words.clear()
        self._errors = asyncio.create_task(self._log_errors(process))
        event(log, logging.DEBUG, "method_host_started", pid=process.pid)
        return process

    async def _log_errors(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:
                continue  # a line beyond the limit was dropped
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                self._last_words.append(text)
                event(log, logging.INFO, "method_host", text=text)

    async def _obituary(self, op: str) -> str:
        """What to say about a host that died during `op`."""
        process = self._process
        if process is not None:
            # Its output ended; its exit code follows. Killing it now would race for that code.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _CLOSE_SECONDS)
        await self._reap()
        code = process.returncode if process is not None else None
        how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        words = f"; its last words: {' | '.join(self._last_words)}" if self._last_words else ""
        return f"the method host died during {op} ({how}){words}"

    async def _reap(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()
        if self._errors is not None:
            await asyncio.gather(self._errors, return_exceptions=True)
            self._errors = None


def _npy(path: Path) -> dict[str, Json]:
    return {"path": str(path)}


def _raw(array: RawArray) -> dict[str, Json]:
    path, shape = array
    return {"path": str(path), "shape": list(shape)}
