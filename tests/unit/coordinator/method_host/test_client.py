"""The method host client against a scripted host and against the real one."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from coordinator.errors import HookFailed, MethodHostFailed, MethodRefused, StorageFailed
from coordinator.method_host.client import SubprocessMethodHost
from coordinator.ports.method_host_files import CollectedFiles, ReductionFiles, ResultFiles
from rounds.hook_requests import a_reduction, as_request
from ssd.method.registry import load
from ssd.updates.declaration import Declaration

T = TypeVar("T")

HOST = """
import json, os, signal, sys, time
for line in sys.stdin:
    request = json.loads(line)
    config = request.get("config", {})
    if request["op"] == "shutdown":
        print("{}", flush=True)
        print("bye", file=sys.stderr)
        break
    print("asked for", request["op"], file=sys.stderr, flush=True)
    if "exit" in config:
        print("about to die", file=sys.stderr, flush=True)
        os._exit(config["exit"])
    if "signal" in config:
        os.kill(os.getpid(), config["signal"])
    if "garbage" in config:
        print("not json", flush=True)
        continue
    if "half" in config:
        sys.stdout.write('{"declaration":'); sys.stdout.flush(); os._exit(0)
    if "error" in config:
        print(json.dumps({"error": {"code": config["error"], "message": "the message"}}), flush=True)
        continue
    time.sleep(config.get("sleep", 0))
    big = "x" * config.get("size", 0)
    print(json.dumps({"declaration": {"pid": os.getpid(), "request": request, "big": big}}), flush=True)
"""


def run(work: Callable[[SubprocessMethodHost], Awaitable[T]], script: str = HOST) -> T:
    async def within() -> T:
        host = SubprocessMethodHost((sys.executable, "-c", script))
        try:
            return await asyncio.wait_for(work(host), 30)
        finally:
            await host.close()

    return asyncio.run(within())


async def pid_of(host: SubprocessMethodHost, **config: Any) -> int:
    return int((await host.declare("m", config))["pid"])


def test_a_request_and_its_answer() -> None:
    async def work(host: SubprocessMethodHost) -> None:
        answer = await host.declare("ssd", {"lr": 0.1, "name": "ü"})
        assert answer["request"] == {"op": "declare", "method": "ssd", "config": {"lr": 0.1, "name": "ü"}}

    run(work)


def test_the_process_is_kept_between_requests() -> None:
    async def work(host: SubprocessMethodHost) -> None:
        assert await pid_of(host) == await pid_of(host)

    run(work)


def test_requests_that_overlap_get_their_own_answers() -> None:
    async def work(host: SubprocessMethodHost) -> None:
        answers = await asyncio.gather(*(host.declare(f"m{n}", {"sleep": 0.01 * (3 - n)}) for n in range(3)))
        assert [answer["request"]["method"] for answer in answers] == ["m0", "m1", "m2"]

    run(work)


def test_the_host_computes_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    script = """
import json, os, sys
for line in sys.stdin:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    print(json.dumps({"declaration": {name: os.environ.get(name) for name in names}}), flush=True)
"""

    async def work(host: SubprocessMethodHost) -> None:
        assert set((await host.declare("m", {})).values()) == {"1"}

    run(work, script)


def test_a_declaration_may_be_large() -> None:
    async def work(host: SubprocessMethodHost) -> None:
        assert len((await host.declare("m", {"size": 3_000_000}))["big"]) == 3_000_000

    run(work)


@pytest.mark.parametrize("code", ["bad_config", "bad_input", "no_server_hook"])
def test_what_the_method_refuses_is_the_operators_to_put_right(code: str) -> None:
    async def work(host: SubprocessMethodHost) -> None:
        pid = await pid_of(host)
        with pytest.raises(MethodRefused, match=r"^the message$"):
            await host.declare("m", {"error": code})
        assert await pid_of(host) == pid

    run(work)


@pytest.mark.parametrize("code", ["internal", "bad_request", "unheard_of"])
def test_any_other_error_is_a_defect(code: str) -> None:
    async def work(host: SubprocessMethodHost) -> None:
        with pytest.raises(MethodHostFailed, match=rf"declare \({code}\): the message"):
            await host.declare("m", {"error": code})

    run(work)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"exit": 3}, r"died during declare \(exit code 3\); its last words: .*about to die"),
        ({"signal": int(signal.SIGKILL)}, r"killed by signal 9"),
        ({"half": True}, r"exit code 0"),
        ({"garbage": True}, r"no reply"),
    ],
)
def test_death_is_noticed_told_and_got_over(config: dict[str, Any], said: str) -> None:
    async def work(host: SubprocessMethodHost) -> None:
        pid = await pid_of(host)
        with pytest.raises(MethodHostFailed, match=said):
            await host.declare("m", config)
        assert await pid_of(host) != pid

    run(work)


def test_a_host_killed_between_requests_is_started_again() -> None:
    async def work(host: SubprocessMethodHost) -> None:
        pid = await pid_of(host)
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.2)
        assert await pid_of(host) != pid

    run(work)


def test_a_request_given_up_does_not_spoil_the_next() -> None:
    async def work(host: SubprocessMethodHost) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(host.declare("slow", {"sleep": 30}), 0.5)
        assert (await host.declare("next", {}))["request"]["method"] == "next"

    run(work)


def test_standard_error_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "coordinator.method_host.client")

    async def work(host: SubprocessMethodHost) -> None:
        await host.declare("m", {})

    run(work)
    texts = [getattr(record, "ssd_fields", {}).get("text") for record in caplog.records]
    assert texts == ["asked for declare", "bye"]


def test_closing_ends_the_process_and_can_be_repeated() -> None:
    async def work(host: SubprocessMethodHost) -> int:
        await host.close()
        pid = await pid_of(host)
        await host.close()
        await host.close()
        return pid

    with pytest.raises(ProcessLookupError):
        os.kill(run(work), 0)


def test_a_host_that_cannot_be_started() -> None:
    async def work() -> None:
        host = SubprocessMethodHost(("/nonexistent/python",))
        with pytest.raises(MethodHostFailed, match="cannot be started"):
            await host.declare("m", {})
        await host.close()

    asyncio.run(work())


@pytest.mark.parametrize(("code", "error"), [("hook_failed", HookFailed), ("storage", StorageFailed)])
def test_a_hooks_own_failure_and_a_full_disk_are_told_from_a_defect(
    code: str, error: type[Exception]
) -> None:
    async def work(host: SubprocessMethodHost) -> None:
        with pytest.raises(error, match=r"^the message$"):
            await host.declare("m", {"error": code})

    run(work)


def hook_files(folder: Path, declaration: Declaration) -> ReductionFiles:
    request = as_request(declaration, a_reduction(declaration), folder)

    def npy(array: dict[str, Any]) -> Path:
        return Path(array["path"])

    def raw(array: dict[str, Any]) -> tuple[Path, tuple[int, ...]]:
        return Path(array["path"]), tuple(array["shape"])

    return ReductionFiles(
        seed=request["seed"],
        round=request["round"],
        rounds=request["rounds"],
        weight=request["weight"],
        clients=request["clients"],
        values=request["values"],
        base=raw(request["base"]),
        delta=npy(request["delta"]),
        statistics=npy(request["statistics"]),
        state={name: npy(array) for name, array in request["state"].items()},
        artefacts={name: raw(array) for name, array in request["artefacts"].items()},
        collected=tuple(
            CollectedFiles(
                client=each["client"],
                weight=each["weight"],
                values=npy(each["values"]),
                statistics=npy(each["statistics"]),
            )
            for each in request["collected"]
        ),
    )


def test_the_real_host_runs_a_server_hook_and_one_killed_in_it_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    config = {"parameters": 200, "hook": True, "collect": True, "hook_seconds": 0.5}
    declaration = load("synthetic", config).declare()
    files = hook_files(tmp_path, declaration)

    def content(made: ResultFiles) -> list[bytes]:
        assert made.delta is not None
        paths = [made.delta, *made.state.values(), *(path for path, _ in made.artefacts.values())]
        return [path.read_bytes() for path in paths]

    async def work() -> None:
        host = SubprocessMethodHost()
        try:
            await host.declare("synthetic", config)
            first = content(await host.after_reduce("synthetic", config, files, tmp_path / "out"))
            running = asyncio.ensure_future(host.after_reduce("synthetic", config, files, tmp_path / "out"))
            await asyncio.sleep(0.2)
            assert host._process is not None
            os.kill(host._process.pid, signal.SIGKILL)
            with pytest.raises(MethodHostFailed, match="died during after_reduce"):
                await running
            made = await host.after_reduce("synthetic", config, files, tmp_path / "out")
            assert content(made) == first
            assert made.metrics == {"hook_calls": 2.0}
            with pytest.raises(MethodRefused, match="no server hook"):
                await host.after_reduce("synthetic", {}, files, tmp_path / "out")
        finally:
            await host.close()

    asyncio.run(work())


def test_the_real_host_runs_a_method_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))

    async def work() -> None:
        host = SubprocessMethodHost()
        try:
            declaration = Declaration.from_json(await host.declare("synthetic", {}))
            made = await host.initial("synthetic", {}, 7, None, tmp_path / "init")
            vector = np.fromfile(made.vector, "<f4")
            assert vector.size == declaration.spec.size
            assert set(made.artefacts) == set(declaration.artefacts)
            for path, shape in made.artefacts.values():
                assert path.stat().st_size == 4 * int(np.prod(shape))
            out = tmp_path / "encoder.safetensors"
            await host.export("synthetic", declaration.config, made.vector, out, {"run": "r", "version": "0"})
            header = out.read_bytes()
            length = int.from_bytes(header[:8], "little")
            assert json.loads(header[8 : 8 + length])["__metadata__"]["run"] == "r"
            with pytest.raises(MethodRefused):
                await host.declare("no-such-method", {})
            with pytest.raises(MethodRefused):
                await host.initial("synthetic", {}, 7, tmp_path / "absent.safetensors", tmp_path / "init")
        finally:
            await host.close()

    asyncio.run(work())
