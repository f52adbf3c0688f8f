"""The training process: started late, kept warm, stopped politely or not, gone with its parent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from ssd.digest import canonical_json
from ssd.methods.synthetic.method import create
from ssd.scaling import ScalingVector
from ssd.updates.codec import Encoding
from ssd.updates.fold import FoldPlan, check_update, encode_update
from ssd_wire.messages import BlobRef, ModelVersion, TaskClient, Train
from worker.core import events
from worker.ports import PreparedTask
from worker.store.sqlite import SqliteStore
from worker.training.process import ProcessTrainer, TrainerSettings

ROOT = Path(__file__).resolve().parents[4]
STUBBORN = """
import time
from pathlib import Path
from ssd.methods.synthetic.method import SyntheticConfig, SyntheticMethod

class Stubborn(SyntheticMethod):
    def train(self, task, data, progress):
        progress(1, 2, {})
        Path(__file__).with_name(task.client_id).touch()
        time.sleep(60)

def create(config):
    return Stubborn(SyntheticConfig(**config))
"""


class Bench:
    """A trainer, its store, and what it reported."""

    def __init__(self, path: Path, config: dict[str, Any], settings: TrainerSettings) -> None:
        method = create({"parameters": 1024, **config})
        declaration = method.declare()
        self.plan = FoldPlan.create(declaration, "float16", 10, 1000)  # type: ignore[arg-type]
        self.store = SqliteStore(path / "state")
        self.store.enter_run("r")
        (path / "declaration").write_bytes(canonical_json(declaration.to_json()))
        (path / "base").write_bytes(method.initial(1, None).astype("<f4").tobytes())
        self.prepared = PreparedTask(
            declaration=path / "declaration",
            declaration_digest=declaration.digest,
            base=path / "base",
            update_encoding="float16",
            max_cohort=10,
            max_client_weight=1000,
        )
        self.events: asyncio.Queue[events.Event] = asyncio.Queue()
        self.progress: list[tuple[str, int, int]] = []
        self.trainer = ProcessTrainer(settings, self.store, self.events.put_nowait, self.on_progress)
        self.task = Train(
            round=1,
            attempt=1,
            base=ModelVersion(number=0, model_digest="b" * 64, full=BlobRef(digest="b" * 64, size=4)),
            task_digest="t" * 64,
            run_seed=5,
            rounds=3,
            values={},
            threads=1,
            clients=(),
            expected_clients=4,
        )

    def on_progress(self, key: Any, step: int, steps: int, _seconds: float) -> None:
        self.progress.append((key.client, step, steps))

    async def train(self, client: str = "a", scaling: ScalingVector | None = None) -> events.Event:
        await self.trainer.train(self.task, TaskClient(client=client, scaling=scaling), self.prepared)
        return await self.next_event()

    async def next_event(self) -> events.Event:
        return await asyncio.wait_for(self.events.get(), 20)


def run(
    path: Path, scenario: Callable[[Bench], Any], config: dict[str, Any] | None = None, **settings: Any
) -> None:
    async def wrapped() -> None:
        bench = Bench(
            path, config or {}, TrainerSettings(**{"device": "cpu", "stop_seconds": 0.5, **settings})
        )
        try:
            await scenario(bench)
        finally:
            await bench.trainer.close()
            bench.store.close()

    asyncio.run(asyncio.wait_for(wrapped(), 60))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


def test_no_process_before_the_first_job_and_the_same_one_after_it(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        assert bench.trainer._child is None
        await bench.train("a")
        first = bench.trainer._child
        await bench.train("b")
        assert bench.trainer._child is first

    run(tmp_path, scenario)


def test_the_update_and_the_next_state_are_on_disk_when_it_is_reported(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        event = await bench.train("a")
        assert isinstance(event, events.ClientTrained)
        done = event.finished
        body = bench.store.body_path(done.key).read_bytes()
        assert len(body) == done.body_size
        check_update(bench.plan, body, done.weight)
        state = safetensors.numpy.load_file(bench.store.pending_state_path(done.key))
        assert int(state["counter"][0]) == 1
        bench.store.keep(done)
        bench.store.promote([done.key])
        event = await bench.train("a")
        assert isinstance(event, events.ClientTrained)
        state = safetensors.numpy.load_file(bench.store.pending_state_path(event.finished.key))
        assert int(state["counter"][0]) == 2

    run(tmp_path, scenario)


def test_the_room_updates_are_encoded_in_is_reused_and_leaves_no_trace() -> None:
    method = create({"parameters": 1024})
    plan = FoldPlan.create(method.declare(), Encoding.FLOAT16, 10, 1000)
    room = bytearray(b"\xff" * plan.update_nbytes)
    size = method.declare().spec.size
    delta = np.linspace(-0.01, 0.01, size, dtype=np.float32)
    statistics = {statistic.name: np.array(0.0) for statistic in method.declare().statistics}
    assert encode_update(plan, delta, statistics, room) == encode_update(plan, delta, statistics)
    with pytest.raises(ValueError, match="room"):
        encode_update(plan, delta, statistics, bytearray(3))


def test_equal_tasks_give_equal_bytes_in_different_processes(tmp_path: Path) -> None:
    bodies = []

    async def scenario(bench: Bench) -> None:
        event = await bench.train("a", ScalingVector(dimension=8, indices=(1, 3), alpha=4.0))
        assert isinstance(event, events.ClientTrained)
        bodies.append(bench.store.body_path(event.finished.key).read_bytes())

    config = {"scaling": {"dimension": 8, "alpha": 4.0}}
    for name in "xy":
        (tmp_path / name).mkdir()
        run(tmp_path / name, scenario, config)
    assert bodies[0] == bodies[1]


def test_a_scaling_vector_that_the_method_never_hands_out_is_not_trained_with(tmp_path: Path) -> None:
    cases = [
        (ScalingVector(8, (1, 3), 1e-9), "of 2 of 8 dimensions times 1e-09, not of 2 of 8 times 4"),
        (ScalingVector(8, (1, 3, 5), 4.0), "of 3 of 8 dimensions"),
        (ScalingVector(4, (1, 3), 4.0), "of 2 of 4 dimensions"),
        (None, "the task has no scaling vector"),
    ]

    async def scenario(bench: Bench) -> None:
        for vector, says in cases:
            event = await bench.train("a", vector)
            assert isinstance(event, events.ClientFailed)
            assert event.reason == "declaration_differs"
            assert says in event.detail

    run(tmp_path, scenario, {"scaling": {"dimension": 8, "alpha": 4.0}})


def test_a_scaling_vector_that_the_method_does_not_declare_is_refused(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        event = await bench.train("a", ScalingVector(dimension=8, indices=(1, 3), alpha=4.0))
        assert isinstance(event, events.ClientFailed)
        assert "the task has a scaling vector" in event.detail

    run(tmp_path, scenario)


async def there(path: Path) -> None:
    """Wait until another process has made this file."""
    made = path.exists
    async with asyncio.timeout(20):
        while not made():  # noqa: ASYNC110  # the other process has no event of this one's
            await asyncio.sleep(0.01)


def test_a_stubborn_method_is_killed_and_the_next_job_gets_a_new_process(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(textwrap.dedent(STUBBORN))

    async def scenario(bench: Bench) -> None:
        await bench.trainer.train(bench.task, TaskClient(client="a"), bench.prepared)
        await there(tmp_path / "a")
        child = bench.trainer._child
        assert child is not None
        await bench.trainer.stop()
        # The method sleeps for a minute: `next_event` waits for a third of that.
        assert isinstance(await bench.next_event(), events.TrainingStopped)
        assert not alive(child.pid)
        await bench.trainer.train(bench.task, TaskClient(client="b"), bench.prepared)
        await there(tmp_path / "b")
        assert bench.trainer._child is not None
        assert bench.trainer._child.pid != child.pid

    run(tmp_path, scenario, methods={"synthetic": str(tmp_path / "stubborn.py")})


def test_stopping_an_idle_trainer_is_answered_at_once(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.trainer.stop()
        assert isinstance(await bench.next_event(), events.TrainingStopped)

    run(tmp_path, scenario)


def test_a_stop_is_answered_exactly_once_whatever_the_job_does(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        for wait in (0.0, 0.05, 0.2, 0.4):
            await bench.trainer.train(bench.task, TaskClient(client="a"), bench.prepared)
            await asyncio.sleep(wait)
            await bench.trainer.stop()
            seen = [await bench.next_event()]
            while not isinstance(seen[-1], events.TrainingStopped):
                seen.append(await bench.next_event())
            assert len(seen) <= 2
            await asyncio.sleep(0.1)
            assert bench.events.empty()

    run(tmp_path, scenario, {"train_seconds": 0.3})


def test_a_process_that_dies_idle_is_replaced_without_a_word_to_the_coordinator(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.train("a")
        child = bench.trainer._child
        assert child is not None
        child.kill()
        await asyncio.sleep(0.3)
        assert bench.events.empty()
        assert isinstance(await bench.train("b"), events.ClientTrained)

    run(tmp_path, scenario)


def test_a_process_that_dies_while_it_starts_is_reported_with_its_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_send = ProcessTrainer._send

    async def dead_first(self: ProcessTrainer, order: Any) -> None:
        if order["do"] == "configure":
            assert self._child is not None
            self._child.kill()
            await self._child.wait()
        await really_send(self, order)

    async def scenario(bench: Bench) -> None:
        monkeypatch.setattr(ProcessTrainer, "_send", dead_first)
        failed = await bench.train()
        assert isinstance(failed, events.ClientFailed)
        assert failed.reason == "training_process_died"
        assert "SIGKILL" in failed.detail
        monkeypatch.undo()
        assert isinstance(await bench.train(), events.ClientTrained)
        assert bench.events.empty()

    run(tmp_path, scenario)


def test_a_damaged_state_is_reported(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        event = await bench.train("a")
        assert isinstance(event, events.ClientTrained)
        bench.store.keep(event.finished)
        bench.store.promote([event.finished.key])
        path = bench.store.state_path("a")
        assert path is not None
        path.write_bytes(b"rubbish")
        event = await bench.train("a")
        assert isinstance(event, events.ClientFailed)
        assert event.reason == "state_unreadable"

    run(tmp_path, scenario)


def test_a_method_that_is_not_there_fails_the_whole_task(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        value = json.loads((tmp_path / "declaration").read_bytes())
        (tmp_path / "declaration").write_bytes(canonical_json({**value, "method": "nobodys"}))
        event = await bench.train("a")
        assert isinstance(event, events.ClientFailed)
        assert (event.reason, event.whole_task) == ("method_unavailable", True)
        assert "nobodys" in event.detail

    run(tmp_path, scenario)


FULL_DISK = """
import errno, os
from ssd.methods.synthetic.method import SyntheticConfig, SyntheticMethod

def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

class Full(SyntheticMethod):
    def train(self, task, data, progress):
        os.pwrite = full
        return super().train(task, data, progress)

def create(config):
    return Full(SyntheticConfig(**config))
"""


def test_a_full_disk_is_reported_as_such_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "full.py").write_text(FULL_DISK)

    async def scenario(bench: Bench) -> None:
        event = await bench.train("a")
        assert isinstance(event, events.ClientFailed)
        assert event.reason == "storage"
        assert list((tmp_path / "state" / "updates").iterdir()) == []

    run(tmp_path, scenario, methods={"synthetic": str(tmp_path / "full.py")})


def test_a_link_in_the_place_of_a_partial_file_is_not_written_through(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")

    async def scenario(bench: Bench) -> None:
        event = await bench.train("a")
        assert isinstance(event, events.ClientTrained)
        body = bench.store.body_path(event.finished.key)
        body.unlink()
        link = body.with_name(body.name + ".part")
        link.symlink_to(precious)
        assert isinstance(await bench.train("a"), events.ClientFailed)
        assert precious.read_text() == "precious"
        assert not body.exists()
        # The link is taken away with the try, so the next one works.
        assert isinstance(await bench.train("a"), events.ClientTrained)
        assert not body.is_symlink()

    run(tmp_path, scenario)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_training_process_dies_with_its_parent(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import asyncio, os, sys, time
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from test_process import Bench, TaskClient, TrainerSettings
        async def main():
            bench = Bench(Path(sys.argv[1]), {"train_seconds": 60}, TrainerSettings(device="cpu"))
            await bench.trainer.train(bench.task, TaskClient(client="a"), bench.prepared)
            await asyncio.sleep(0.5)
            print(bench.trainer._child.pid, flush=True)
            time.sleep(60)
        asyncio.run(main())
        """
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto'}"}
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def test_the_arrays_of_a_task_are_read_only(tmp_path: Path) -> None:
    method = textwrap.dedent(
        """
        from ssd.methods.synthetic.method import SyntheticConfig, SyntheticMethod
        class Meddler(SyntheticMethod):
            def train(self, task, data, progress):
                task.base[0] = 1.0
        def create(config):
            return Meddler(SyntheticConfig(**config))
        """
    )
    (tmp_path / "meddler.py").write_text(method)

    async def scenario(bench: Bench) -> None:
        before = np.fromfile(bench.prepared.base, "<f4")
        event = await bench.train("a")
        assert isinstance(event, events.ClientFailed)
        assert "read-only" in event.detail
        assert np.array_equal(np.fromfile(bench.prepared.base, "<f4"), before)

    run(tmp_path, scenario, methods={"synthetic": str(tmp_path / "meddler.py")})


FAULTY_DEVICE = """
from ssd.methods.synthetic.method import SyntheticConfig, SyntheticMethod

class Faulty(SyntheticMethod):
    def train(self, task, data, progress):
        if task.client_id == "a":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().train(task, data, progress)

def create(config):
    return Faulty(SyntheticConfig(**config))
"""


def test_after_a_device_fault_the_next_client_gets_a_fresh_process(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY_DEVICE)

    async def scenario(bench: Bench) -> None:
        failed = await bench.train("a")
        assert isinstance(failed, events.ClientFailed)
        assert failed.reason == "device_fault"
        # At once: the spoiled process is on its way out, and must not be given this client.
        assert isinstance(await bench.train("b"), events.ClientTrained)

    run(tmp_path, scenario, methods={"synthetic": str(tmp_path / "faulty.py")})
