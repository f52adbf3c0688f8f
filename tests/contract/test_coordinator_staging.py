"""Staging keeps the Behaviour lines of `coordinator.ports.staging.Staging`; the state directory has one owner."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from coordinator.errors import StateDirectoryLocked, StorageFailed
from coordinator.ports.staging import StagedBody, Staging
from coordinator.store.files import staging as staging_module
from coordinator.store.files.staging import BudgetedStaging, DiskBody, MemoryBody
from coordinator.store.lock import StateDirectoryLock

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def staging(tmp_path: Path) -> BudgetedStaging:
    return BudgetedStaging(tmp_path / "staging", ram_bytes=100, disk_bytes=200)


@pytest.fixture(params=["memory", "disk"])
def body(request: pytest.FixtureRequest, tmp_path: Path) -> StagedBody:
    ram = 100 if request.param == "memory" else 0
    opened = BudgetedStaging(tmp_path / "staging", ram_bytes=ram, disk_bytes=100).open(60)
    assert isinstance(opened, MemoryBody if ram else DiskBody)
    return opened


def opened(staging: Staging, size: int) -> StagedBody:
    body = staging.open(size)
    assert body is not None
    return body


class TestBody:
    def test_bytes_are_added_where_the_last_ended(self, body: StagedBody) -> None:
        assert (body.size, body.received) == (60, 0)
        assert body.view().shape == (0,)
        body.append(b"abc")
        body.append(b"")
        body.append(b"defg")
        assert body.received == 7
        view = body.view()
        assert (view.dtype, view.tobytes()) == (np.dtype(np.uint8), b"abcdefg")

    def test_views_cannot_be_written(self, body: StagedBody) -> None:
        body.append(b"abc")
        assert not body.view().flags.writeable
        with pytest.raises(ValueError):
            body.view()[0] = 1

    def test_more_than_its_size_is_refused_and_changes_nothing(self, body: StagedBody) -> None:
        body.append(b"x" * 59)
        with pytest.raises(ValueError, match="body of 60"):
            body.append(b"yz")
        assert body.received == 59
        body.append(b"y")
        assert body.view().tobytes() == b"x" * 59 + b"y"

    def test_a_view_outlives_the_body(self, body: StagedBody) -> None:
        body.append(b"abc")
        view = body.view()
        body.discard()
        assert view.tobytes() == b"abc"

    def test_a_discarded_body_is_of_no_use(self, body: StagedBody) -> None:
        body.discard()
        body.discard()
        for call in (lambda: body.append(b"a"), body.view):
            with pytest.raises(ValueError, match="discarded"):
                call()


class TestStaging:
    def test_ram_first_then_disk_then_none(self, staging: BudgetedStaging) -> None:
        first, second = opened(staging, 60), opened(staging, 60)
        assert isinstance(first, MemoryBody)
        assert isinstance(second, DiskBody)
        small = opened(staging, 40)
        assert isinstance(small, MemoryBody)
        assert (staging.ram_used, staging.disk_used) == (100, 60)
        assert staging.open(141) is None
        assert isinstance(opened(staging, 140), DiskBody)
        assert staging.open(1) is None
        assert isinstance(opened(staging, 0), MemoryBody)

    def test_a_body_that_may_wait_for_memory_does_not_go_to_the_disk(self, staging: BudgetedStaging) -> None:
        first = staging.open(60, in_memory=True)
        assert isinstance(first, MemoryBody)
        assert staging.open(60, in_memory=True) is None
        assert isinstance(staging.open(101, in_memory=True), DiskBody), "it never fits"
        first.discard()
        assert isinstance(staging.open(60, in_memory=True), MemoryBody)

    def test_memory_is_used_again_within_the_budget(self, staging: BudgetedStaging) -> None:
        def place(body: StagedBody) -> int:
            body.append(b"x" * body.size)
            return int(body.view().ctypes.data)

        first = opened(staging, 40)
        where = place(first)
        first.discard()
        assert [each.ctypes.data for each in staging._spare] == [where]
        again = opened(staging, 40)
        assert again.received == 0
        assert place(again) == where
        again.discard()
        # Of another size: what is spare and what is in use never exceed the budget together.
        larger = opened(staging, 70)
        assert sum(each.size for each in staging._spare) + larger.size <= 100

    def test_memory_that_somebody_still_reads_is_not_used_again(self, staging: BudgetedStaging) -> None:
        body = opened(staging, 40)
        body.append(b"a" * 40)
        seen = body.view()[10:20]
        body.discard()
        opened(staging, 40).append(b"b" * 40)
        assert seen.tobytes() == b"a" * 10

    def test_discard_gives_the_room_back_once_and_says_so(self, staging: BudgetedStaging) -> None:
        calls: list[int] = []
        staging.on_room(lambda: calls.append(1))
        memory, disk = opened(staging, 100), opened(staging, 200)
        assert staging.open(1) is None
        assert calls == []
        disk.discard()
        disk.discard()
        assert (staging.ram_used, staging.disk_used, len(calls)) == (100, 0, 1)
        memory.discard()
        assert (staging.ram_used, staging.disk_used, len(calls)) == (0, 0, 2)
        opened(staging, 100)

    def test_a_callback_may_open_a_body(self, staging: BudgetedStaging) -> None:
        got: list[StagedBody | None] = []
        staging.on_room(lambda: got.append(staging.open(150)))
        opened(staging, 200).discard()
        assert isinstance(got[0], DiskBody)

    def test_what_can_never_fit_is_known(self, staging: BudgetedStaging) -> None:
        assert staging.fits(200)
        assert not staging.fits(201)

    def test_a_negative_size_is_a_mistake(self, staging: BudgetedStaging) -> None:
        with pytest.raises(ValueError):
            staging.open(-1)

    def test_a_declared_body_takes_no_memory_before_its_bytes_come(self, tmp_path: Path) -> None:
        staging = BudgetedStaging(tmp_path, ram_bytes=4 << 30, disk_bytes=0)
        before = resident_bytes()
        body = opened(staging, 2 << 30)
        body.append(b"x" * (1 << 20))
        assert resident_bytes() - before < 64 << 20

    def test_a_full_disk_is_no_room(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        staging = BudgetedStaging(tmp_path / "staging", ram_bytes=0, disk_bytes=100)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(staging_module.os, "posix_fallocate", full)
        assert staging.open(10) is None
        assert staging.disk_used == 0
        assert list((tmp_path / "staging").iterdir()) == []

    def test_the_last_free_bytes_are_not_for_uploads(self, tmp_path: Path) -> None:
        staging = BudgetedStaging(tmp_path / "staging", ram_bytes=0, disk_bytes=100, min_free_bytes=1 << 60)
        assert staging.open(10) is None
        assert staging.disk_used == 0

    def test_a_file_system_without_preallocation_will_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unsupported(*_: object) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(staging_module.os, "posix_fallocate", unsupported)
        body = opened(BudgetedStaging(tmp_path, ram_bytes=0, disk_bytes=100), 10)
        body.append(b"abc")
        assert body.view().tobytes() == b"abc"

    def test_a_failing_disk_fails_as_storage(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        body = opened(BudgetedStaging(tmp_path, ram_bytes=0, disk_bytes=100), 10)

        def broken(*_: object) -> int:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(staging_module.os, "pwrite", broken)
        with pytest.raises(StorageFailed, match="check the disk"):
            body.append(b"abc")
        assert body.received == 0

    def test_disk_bodies_have_no_name(self, tmp_path: Path) -> None:
        staging = BudgetedStaging(tmp_path / "staging", ram_bytes=0, disk_bytes=100)
        opened(staging, 50).append(b"abc")
        assert list((tmp_path / "staging").iterdir()) == []

    def test_what_a_dead_process_left_is_removed(self, tmp_path: Path) -> None:
        (tmp_path / "tmpabcd").write_bytes(b"leftover")
        BudgetedStaging(tmp_path, ram_bytes=0, disk_bytes=0)
        assert list(tmp_path.iterdir()) == []

    def test_budgets_hold_under_many_threads(self, tmp_path: Path) -> None:
        staging = BudgetedStaging(tmp_path, ram_bytes=300, disk_bytes=300)
        over: list[tuple[int, int]] = []
        told: list[int] = []
        staging.on_room(lambda: told.append(1))

        def work(seed: int) -> None:
            draw = random.Random(seed)
            held: list[StagedBody] = []
            for _ in range(100):
                body = staging.open(draw.randrange(120))
                if body is not None:
                    body.append(b"x" * body.size)
                    held.append(body)
                if staging.ram_used > 300 or staging.disk_used > 300:
                    over.append((staging.ram_used, staging.disk_used))
                if held and draw.random() < 0.6:
                    held.pop(draw.randrange(len(held))).discard()
            for body in held:
                body.discard()

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert over == []
        assert told
        assert (staging.ram_used, staging.disk_used) == (0, 0)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class TestStateDirectoryLock:
    def test_a_second_process_is_refused_and_told_by_whom(self, tmp_path: Path) -> None:
        script = f"""
import sys
from pathlib import Path
from coordinator.errors import StateDirectoryLocked
from coordinator.store.lock import StateDirectoryLock
try:
    StateDirectoryLock(Path({str(tmp_path)!r}))
except StateDirectoryLocked as error:
    sys.exit(str(error))
"""
        command = [sys.executable, "-c", script]
        with StateDirectoryLock(tmp_path):
            done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
            assert done.returncode == 1
            assert f"process {os.getpid()}" in done.stderr
            assert "state_dir" in done.stderr
        assert subprocess.run(command, env=ENVIRONMENT).returncode == 0

    def test_a_killed_owner_leaves_the_directory_free(self, tmp_path: Path) -> None:
        script = f"""
import sys, time
from pathlib import Path
from coordinator.store.lock import StateDirectoryLock
held = StateDirectoryLock(Path({str(tmp_path)!r}))
print("held", flush=True)
time.sleep(60)
"""
        with subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        ) as owner:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "held\n"
            with pytest.raises(StateDirectoryLocked, match=f"process {owner.pid}"):
                StateDirectoryLock(tmp_path)
            owner.send_signal(signal.SIGKILL)
            owner.wait()
        StateDirectoryLock(tmp_path).release()

    def test_the_directory_is_made(self, tmp_path: Path) -> None:
        lock = StateDirectoryLock(tmp_path / "a" / "b")
        assert (tmp_path / "a" / "b" / "lock").read_text() == f"{os.getpid()}\n"
        lock.release()
        lock.release()

    def test_a_place_that_cannot_be_written_says_so(self, tmp_path: Path) -> None:
        (tmp_path / "state").write_text("in the way")
        with pytest.raises(StorageFailed):
            StateDirectoryLock(tmp_path / "state")
