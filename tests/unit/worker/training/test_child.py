"""`ssd-worker run` as a process: how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from wire.fake_coordinator import FakeCoordinator

ROOT = Path(__file__).resolve().parents[4]
STUBBORN = """
import time
from ssd.methods.synthetic.method import SyntheticConfig, SyntheticMethod
class Stubborn(SyntheticMethod):
    def train(self, task, data, progress):
        progress(1, 2, {})
        time.sleep(60)
def create(config):
    return Stubborn(SyntheticConfig(**config))
"""


async def start(coordinator: FakeCoordinator, tmp_path: Path, *arguments: str) -> asyncio.subprocess.Process:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto'}"}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "worker", "run", "--insecure", "--coordinator", coordinator.target, "--name", "w1",
        "--clients", "a,b", "--state-dir", str(tmp_path / "state"), "--device", "cpu", *arguments,
        env=environment, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str]:
    _, log = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, log.decode()


def children_of(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def run(scenario: Any) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


def test_a_signal_in_mid_training_keeps_what_is_finished_and_ends_with_0(tmp_path: Path) -> None:
    async def scenario() -> None:
        coordinator = FakeCoordinator({"train_seconds": 1.0})
        await coordinator.start()
        process = await start(coordinator, tmp_path)
        stream = await coordinator.attended()
        stream.send(train=coordinator.train(["a", "b"]))
        while (await stream.receive("progress")).step != 1:  # "a" is finished and stored
            pass
        process.send_signal(signal.SIGTERM)
        code, log = await ended(process)
        assert code == 0, log
        process = await start(coordinator, tmp_path)
        stream = await coordinator.attended()
        assert [held.client for held in stream.hello.held_updates] == ["a"]
        process.send_signal(signal.SIGINT)
        assert (await ended(process))[0] == 0
        await coordinator.stop()

    run(scenario())


def test_the_end_of_the_terminal_ends_nothing(tmp_path: Path) -> None:
    """A closed SSH session sends SIGHUP to every process of it: worker and training process."""

    async def scenario() -> None:
        coordinator = FakeCoordinator({"train_seconds": 0.5})
        await coordinator.start()
        process = await start(coordinator, tmp_path)
        stream = await coordinator.attended()
        stream.send(train=coordinator.train(["a", "b"]))
        await stream.receive("progress")
        children = children_of(process.pid)
        assert children
        for number in (process.pid, *children):
            os.kill(number, signal.SIGHUP)
        while (await stream.receive("progress")).client != "b":
            pass
        process.send_signal(signal.SIGTERM)
        code, log = await ended(process)
        assert code == 0, log
        assert "hangup_ignored" in log
        assert "training_process_ended" not in log
        assert "training_process_killed" not in log
        await coordinator.stop()

    run(scenario())


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)

    async def scenario() -> None:
        coordinator = FakeCoordinator()
        await coordinator.start()
        process = await start(coordinator, tmp_path, "--set", f"methods.synthetic={tmp_path / 'stubborn.py'}")
        stream = await coordinator.attended()
        stream.send(train=coordinator.train(["a"]))
        await stream.receive("version_held")
        await asyncio.sleep(1.0)
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 128 + signal.SIGTERM
        await coordinator.stop()

    run(scenario())


@pytest.mark.parametrize("reason", ["protocol_version", "bad_name"])
def test_a_permanent_refusal_ends_with_3_and_a_sentence(tmp_path: Path, reason: str) -> None:
    async def scenario() -> None:
        coordinator = FakeCoordinator()
        coordinator.refuse_hello = (grpc.StatusCode.FAILED_PRECONDITION, reason)
        await coordinator.start()
        code, log = await ended(await start(coordinator, tmp_path))
        assert code == 3
        assert f"error: the coordinator refuses this worker ({reason})" in log
        assert "Traceback" not in log
        await coordinator.stop()

    run(scenario())


def test_a_signal_without_a_coordinator_ends_it_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        coordinator = FakeCoordinator()
        coordinator.port = 1  # nobody listens there
        process = await start(coordinator, tmp_path)
        assert process.stderr is not None
        await asyncio.wait_for(process.stderr.readuntil(b"link_lost"), 30)
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 0

    run(scenario())
