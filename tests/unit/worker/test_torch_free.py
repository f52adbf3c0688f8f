"""The worker's own process never imports torch, and its core and command line not even grpc."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def modules_after(code: str) -> set[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto'}"}
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    return set(done.stdout.split())


def test_the_whole_worker_without_torch() -> None:
    loaded = modules_after(
        "import worker.app, worker.cli.main, worker.store.move_client, worker.cli.supervisor"
    )
    assert "grpc" in loaded
    assert not {"torch", "torchvision", "sklearn"} & loaded


def test_the_training_process_without_torch_and_grpc_until_a_method_brings_it() -> None:
    loaded = modules_after(
        "import worker.training.child\nfrom ssd.method.registry import load\nload('synthetic', {})"
    )
    assert not {"torch", "grpc", "google.protobuf", "prometheus_client", "pydantic"} & loaded


@pytest.mark.parametrize("module", ["worker.core.session", "worker.core.backoff"])
def test_the_core_knows_no_clock_socket_or_disk(module: str) -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "worker" / "core").glob("*.py"))
    for forbidden in (
        "import time",
        "import random",
        "import asyncio",
        "import os",
        "import logging",
        "import grpc",
    ):
        assert forbidden not in source
    assert "grpc" not in modules_after(f"import {module}")


def test_the_command_line_answers_without_grpc() -> None:
    loaded = modules_after("from worker.cli.main import main\nmain(['config', 'show', '--insecure'])")
    assert not {"torch", "grpc"} & loaded


@pytest.mark.parametrize("arguments", [["--help"], ["client", "list", "--help"]])
def test_help_imports_nothing_that_takes_time(arguments: list[str]) -> None:
    loaded = modules_after(f"from worker.cli.main import main\nmain({arguments})")
    heavy = {"torch", "grpc", "aiohttp", "asyncio", "numpy", "pydantic", "cryptography", "sqlite3"}
    assert not heavy & loaded


def test_a_worker_without_a_metrics_port_has_no_http_server_imported() -> None:
    assert "aiohttp" not in modules_after("import worker.app")
