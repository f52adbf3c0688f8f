"""`--devices`: dealing clients out, starting, restarting and stopping one worker per device."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from worker.cli.supervisor import Member, members, parse_devices
from worker.config.sections import WorkerConfig, load
from worker.errors import ConfigInvalid

ROOT = Path(__file__).resolve().parents[4]


def config(tmp_path: Path, clients: str = "abcde", **flags: object) -> WorkerConfig:
    given = {
        "transport.insecure": True,
        "worker.name": "box",
        "worker.state_dir": str(tmp_path / "state"),
        "data.clients": list(clients),
    }
    return load(None, given | flags, {})


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("all", {}, (("gpu0", "0"), ("gpu1", "1"), ("gpu2", "2"))),
        ("all", {"CUDA_VISIBLE_DEVICES": "5,GPU-ab"}, (("gpu0", "5"), ("gpu1", "GPU-ab"))),
        ("1,3", {}, (("gpu0", "1"), ("gpu1", "3"))),
        ("cpu,cpu", {}, (("cpu0", ""), ("cpu1", ""))),
        ("0, cpu", {}, (("gpu0", "0"), ("cpu1", ""))),
    ],
)
def test_devices(text: str, environ: dict[str, str], expected: tuple[tuple[str, str], ...]) -> None:
    assert parse_devices(text, environ, lambda: 3) == expected


@pytest.mark.parametrize("text", ["", "tpu", "-1", "cuda:0"])
def test_what_is_no_device_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid, match="--devices"):
        parse_devices(text, {}, lambda: 3)


def test_all_without_a_gpu_says_what_to_do() -> None:
    with pytest.raises(ConfigInvalid, match="cpu,cpu"):
        parse_devices("all", {}, lambda: 0)


def test_clients_are_dealt_round_robin_and_nothing_is_shared(tmp_path: Path) -> None:
    devices = (("gpu0", "4"), ("gpu1", "5"))
    team = members(
        config(tmp_path, **{"worker.http_listen": "127.0.0.1:9100"}), devices, ["run", "--insecure"]
    )
    dealt = []
    for number, member in enumerate(team):
        options = dict(zip(member.arguments[2::2], member.arguments[3::2], strict=True))
        dealt.append(Path(options["--clients"][1:]).read_text().split())
        assert options["--name"] == f"box-gpu{number}"
        assert options["--state-dir"] == str(tmp_path / "state" / f"gpu{number}")
        assert options["--device"] == "cuda"
        assert options["--http-listen"] == f"127.0.0.1:{9100 + number}"
        assert member.environment == {"CUDA_VISIBLE_DEVICES": str(4 + number)}
    assert dealt == [["a", "c", "e"], ["b", "d"]]


def test_a_device_without_a_client_gets_no_worker(tmp_path: Path) -> None:
    devices = (("cpu0", ""), ("cpu1", ""), ("cpu2", ""))
    assert [member.label for member in members(config(tmp_path, "ab"), devices, ["run"])] == ["cpu0", "cpu1"]
    with pytest.raises(ConfigInvalid, match="no client"):
        members(config(tmp_path, ""), devices, ["run"])


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(condition: object, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_crashed_worker_is_started_again_and_a_signal_stops_them_all(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto'}"}
    arguments = ["run", "--insecure", "--coordinator", f"unix:{tmp_path}/none", "--clients", "a,b", "--name", "box",
                 "--state-dir", str(tmp_path / "state"), "--devices", "cpu,cpu"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", *arguments], env=environment, stderr=subprocess.PIPE, text=True
    )
    stores = [tmp_path / "state" / label / "store.sqlite3" for label in ("cpu0", "cpu1")]
    wait_for(lambda: all(store.exists() for store in stores))
    first = children(process.pid)
    assert len(first) == 2
    os.kill(first[0], signal.SIGKILL)
    wait_for(lambda: len(children(process.pid)) == 2 and first[0] not in children(process.pid))
    team = children(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in team)
    assert process.stderr is not None
    log = process.stderr.read()
    assert "worker_crashed" in log


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_refused_for_good_ends_them_all_with_its_exit_code(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto'}"}
    (tmp_path / "state" / "cpu0").mkdir(parents=True)
    script = (
        "import sys; from pathlib import Path; from worker.store.files import DirectoryLock\n"
        f"lock = DirectoryLock(Path({str(tmp_path / 'state' / 'cpu0')!r}))\n"
        "from worker.cli.main import main\n"
        f"sys.exit(main(['run', '--insecure', '--coordinator', 'unix:{tmp_path}/none', '--clients', 'a,b',"
        f" '--state-dir', {str(tmp_path / 'state')!r}, '--devices', 'cpu,cpu']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3
    assert "another worker uses the state directory" in done.stderr


def test_a_member_is_plain_data() -> None:
    assert Member(label="x", arguments=("run",)).environment == {}
