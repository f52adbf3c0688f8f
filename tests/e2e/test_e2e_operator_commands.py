"""Doctors and `explain` beside real daemons: what they say of a federation in which one client cannot be trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from federation import ROOT, Federation

pytestmark = pytest.mark.e2e


def ask(daemon: str, *arguments: str) -> tuple[int, Any]:
    """Exit code and the JSON a command prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "proto")])}
    done = subprocess.run(
        [sys.executable, "-m", daemon, *arguments, "--format", "json"],
        capture_output=True,
        env=environment,
        text=True,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_federation_with_a_client_that_fails(tmp_path: Path) -> None:
    changes = {
        "run.mode": "elastic", "run.rounds": 1, "run.when_done": "serve", "round.cohort_size": 3,
        "round.min_updates": 2, "round.deadline_seconds": 120.0,
        "method.config": {"fail_clients": {"c": "raise"}, "parameters": 64},
    }  # fmt: skip
    with Federation(tmp_path, **changes) as federation:
        federation.start_coordinator()
        federation.start_worker("w1", ["a", "b"])
        federation.start_worker("w2", ["c"])
        federation.until(lambda: federation.status().version.number == 1, "a round is committed")

        code, told = ask("coordinator", "explain", "1", "--state-dir", str(federation.state_dir))
        assert code == 0
        clients = {each["client"]: each for each in told["attempts"][-1]["clients"]}
        assert {name: (each["fate"], each["worker"]) for name, each in clients.items()} == {
            "a": ("included", "w1"), "b": ("included", "w1"), "c": ("failed", "w2"),
        }  # fmt: skip
        assert clients["c"]["reason"]
        assert clients["a"]["asked_at"] <= clients["a"]["accepted_at"]

        # torch needs longer than this to be imported, which is a warning and no fault.
        patience = ("--patience", "0.5")
        code, told = ask("worker", "doctor", "--config", str(tmp_path / "w1.toml"), *patience)
        found = {each["check"]: each for each in told["findings"]}
        assert (code, told["healthy"]) == (0, True), told
        assert "is serving" in found["peer"]["text"]
        assert (
            "a worker is running" in [each["text"] for each in told["findings"] if each["check"] == "disk"][1]
        )
        code, told = ask("coordinator", "doctor", "--config", str(tmp_path / "coordinator.toml"), *patience)
        assert (code, told["healthy"]) == (0, True), told
        assert all(
            "the coordinator is running" in e["text"] for e in told["findings"] if e["check"] == "ports"
        )

        federation.coordinator.kill()
        code, again = ask("coordinator", "explain", "1", "--state-dir", str(federation.state_dir))
        assert (code, again["attempts"][-1]["clients"][0]["fate"]) == (0, "included")
        code, told = ask("worker", "doctor", "--config", str(tmp_path / "w1.toml"), *patience)
        assert code == 3
        assert [each["check"] for each in told["findings"] if each["level"] == "fault"] == ["network"]
