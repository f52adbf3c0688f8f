"""Files that happen to lie where somebody works, or where `PYTHONPATH` points, are not run as ours.

Each planted file notes that it was taken and fails, as somebody's own `worker.py` would.
"""

from __future__ import annotations

import ast
import asyncio
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from coordinator.method_host.client import SubprocessMethodHost
from processes.federation import ROOT
from rounds.worker_harness import federation
from ssd.daemon.doctor.software import gather_torch
from ssd.federation.children import Children
from worker.cli.supervisor import count_gpus

OURS = ("worker", "coordinator", "ssd")
LIBRARIES = (
    "random",
    "logging",
    "json",
    "socket",
    "asyncio",
    "secrets",
    "queue",
    "types",
    "numpy",
    "torch",
    "click",
    "grpc",
)
HOOKS = ("sitecustomize", "usercustomize")
TRACE = """
import os
with open({trace!r}, "a") as file:
    file.write({name!r} + chr(10))
raise ImportError("somebody's own {name}")
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """What was taken, one name a line; absent as long as nothing was."""
    return tmp_path / "taken"


@pytest.fixture
def planted(tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory full of such files, which the environment points to in every way there is."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in (*OURS, *LIBRARIES, *HOOKS):
        (folder / f"{name}.py").write_text(TRACE.format(trace=str(trace), name=name))
    user = (
        folder / "user" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    )
    user.mkdir(parents=True)
    (user / "planted.pth").write_text(f"import os; open({str(trace)!r}, 'a').write('user site\\n')\n")
    monkeypatch.chdir(folder)
    for name, value in {
        "PYTHONPATH": f":{folder}",
        "PYTHONSTARTUP": str(folder / "random.py"),
        "PYTHONUSERBASE": str(folder / "user"),
        "PYTHONSAFEPATH": "",
        "PYTHONNOUSERSITE": "",
    }.items():
        monkeypatch.setenv(name, value)
    return folder


def test_a_worker_trains_with_its_own_training_process(planted: Path, trace: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path / "state", ["a"]) as (coordinator, _):
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a"]))
            assert (await coordinator.uploaded()).clients == ["a"]

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert not trace.exists()


def test_the_method_host_is_ours(planted: Path, trace: Path) -> None:
    async def scenario() -> None:
        host = SubprocessMethodHost()
        try:
            assert (await host.declare("synthetic", {}))["method"] == "synthetic"
        finally:
            await host.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert not trace.exists()


def test_the_doctors_look_at_torch_is_ours(planted: Path, trace: Path) -> None:
    told = gather_torch("cpu", 120.0)
    assert "failed" not in told, told
    count_gpus()
    assert not trace.exists()


@pytest.mark.parametrize("program", [*OURS, "ssd.experiment.cell"])
def test_the_daemons_of_a_demo_and_of_an_experiment_are_ours(
    planted: Path, trace: Path, tmp_path: Path, program: str
) -> None:
    with Children() as children:
        child = children.start(program, ["-m", program, "--help"], tmp_path / "log")
        child.process.wait(60)
    said = (tmp_path / "log").read_text()
    assert "Usage: ssd" in said or "--help" in said, said
    assert not trace.exists(), said


@pytest.mark.parametrize("program", ["ssd-worker", "ssd-coordinator", "ssd"])
def test_a_console_script_started_there_is_ours(
    planted: Path, trace: Path, tmp_path: Path, program: str
) -> None:
    """With a path that ends with a colon Python searches the working directory first, in a script too."""
    for name in HOOKS:  # these run before any line of a script
        (planted / f"{name}.py").unlink()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts[program].partition(":")
    script = tmp_path / program
    script.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    environment = os.environ | {"PYTHONPATH": ":", "PYTHONNOUSERSITE": "1"}
    done = subprocess.run(
        [sys.executable, script, "--help"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.startswith(f"Usage: {program} ")) == (0, True), done
    refused = subprocess.run(
        [sys.executable, script, "nonsense"], env=environment, capture_output=True, timeout=60
    )
    assert refused.returncode == 2
    assert not trace.exists()


def test_only_one_place_says_how_a_child_of_ours_is_started() -> None:
    """Another place would have to think of all of this again."""
    found = set()
    for package in ("coordinator", "worker", "ssd", "proto/ssd_wire"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Attribute) and node.attr == "executable":
                    found.add(str(file.relative_to(ROOT)))
    assert found == {
        "ssd/daemon/child_process.py",
        "ssd/federation/children.py",  # the leash in front of a child, which is isolated as well
        "proto/ssd_wire/start.py",  # the console scripts begin anew
    }
