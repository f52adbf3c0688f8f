"""Daemons that are told to trace without the packages for it: a clear sentence, and nothing begun."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from worker.app import open_tracing
from worker.config.sections import WorkerConfig
from worker.errors import ConfigInvalid

INSTALL = "pip install '.[tracing]'"


def test_the_coordinator_creates_no_run(tmp_path: Path) -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; from coordinator.cli.main import main; main()"
    settings = ["tracing.endpoint=http://127.0.0.1:4317", "method.name=synthetic", "coordinator.http_listen="]
    arguments = [part for each in settings for part in ("--set", each)]
    command = [sys.executable, "-c", code, "run", "--insecure", "--listen", "127.0.0.1:0", *arguments]
    done = subprocess.run([*command, "--state-dir", str(tmp_path / "state")], capture_output=True, text=True)
    assert done.returncode == 2
    assert INSTALL in done.stderr
    assert "Traceback" not in done.stderr
    assert {each.name for each in (tmp_path / "state").iterdir()} == {"lock"}


def test_the_worker_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    config = WorkerConfig.model_validate({"tracing": {"endpoint": "http://127.0.0.1:4317"}})
    for name in [each for each in sys.modules if each.split(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "ssd.daemon.tracing.exporter", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigInvalid) as raised:
        open_tracing(config)
    assert INSTALL in str(raised.value)
    assert open_tracing(WorkerConfig()) is None
