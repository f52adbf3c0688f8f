"""deploy/compose.yaml without containers: its setup script, its three workers and their settings run as they stand, paths apart."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployment.composition import mounted
from processes.federation import PATIENCE, ROOT, read_events
from processes.ports import free_port

pytestmark = pytest.mark.e2e
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())


def environment(root: Path, **more: str) -> dict[str, str]:
    programs = root / "bin"
    programs.mkdir(exist_ok=True)
    for name, module in (("ssd", "ssd"), ("ssd-coordinator", "coordinator"), ("ssd-worker", "worker")):
        file = programs / name
        file.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        file.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "proto")]),
        "SSD_LOG_FORMAT": "json",
        **more,
    }


def test_the_composition_sets_itself_up_and_trains(tmp_path: Path) -> None:
    ports = {"7443": free_port(), "9464": free_port()}

    def here(text: str) -> str:
        text = text.replace("/pki", f"{tmp_path}/pki").replace("/var/lib/ssd", f"{tmp_path}/state")
        text = text.replace("0.0.0.0", "127.0.0.1").replace('"coordinator:7443"', '"localhost:7443"')
        for inside, outside in ports.items():
            text = text.replace(f":{inside}", f":{outside}")
        return text.replace(":9465", ":0").replace("$$", "$")

    services = COMPOSE["services"]
    (script,) = services["authority"]["command"]
    (tmp_path / "pki").mkdir()
    made = subprocess.run(
        ["sh", "-ec", here(script)], env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stdout + made.stderr
    started: list[subprocess.Popen[bytes]] = []
    try:
        for name in ("coordinator", "worker-one", "worker-two", "worker-three"):
            service = services[name]
            kind = "coordinator" if name == "coordinator" else "worker"
            settings = (ROOT / "deploy" / "compose" / f"{kind}.toml").read_text()
            config = tmp_path / f"{name}.toml"
            config.write_text(here(settings).replace(f"{tmp_path}/state", f"{tmp_path}/state/{name}"))
            (tmp_path / "state" / name).mkdir(parents=True)
            own = {key: here(str(value)) for key, value in service.get("environment", {}).items()}
            command = [part.replace(f"/etc/ssd/{kind}.toml", str(config)) for part in service["command"]]
            with (tmp_path / f"{name}.log").open("wb") as log:
                started.append(
                    subprocess.Popen(
                        command, env=environment(tmp_path, **own), stdout=log, stderr=log, cwd=tmp_path
                    )
                )
        log = tmp_path / "coordinator.log"
        deadline = time.monotonic() + PATIENCE
        while not read_events(log, "round_committed"):
            assert time.monotonic() < deadline, "\n".join(
                file.read_text()[-2000:] for file in tmp_path.glob("*.log")
            )
            time.sleep(0.1)
        assert read_events(log, "round_committed")[0]["clients"] == 9
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(PATIENCE)


def test_every_file_the_composition_mounts_is_there() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", ()):
            source = mounted(volume).source
            if source.startswith("."):
                assert (ROOT / "deploy" / source).exists(), source
            else:
                assert source in COMPOSE["volumes"]
