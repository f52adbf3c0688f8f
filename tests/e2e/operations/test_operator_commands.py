"""Doctors, `explain` and `watch` beside real daemons: what they say of a federation in which one client cannot be trained."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from processes.federation import ROOT, Federation
from processes.ports import free_port
from processes.terminal import Terminal

pytestmark = pytest.mark.e2e


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "proto")])}


def ask(daemon: str, *arguments: str) -> tuple[int, Any]:
    """Exit code and the JSON a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", daemon, *arguments, "--format", "json"],
        capture_output=True,
        env=ENVIRONMENT,
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

        assert federation.pki is not None
        where = ["--address", federation.address, "--pki", str(federation.pki.folder)]
        program = [sys.executable, "-m", "coordinator", "watch", "--interval", "0.2", *where]
        with Terminal(program, {**ENVIRONMENT, "NO_COLOR": "1", "COLUMNS": "80", "LINES": "24"}) as terminal:
            terminal.shows("w1")
            assert any(line.startswith("version   1 of 1") for line in terminal.picture)
            assert any("committed" in line and "2/3" in line for line in terminal.picture)
            terminal.resize(12, 40)
            terminal.until(lambda: len(terminal.picture) == 12, "a smaller picture")
            assert all(len(line) <= 40 for line in terminal.picture)

            federation.coordinator.kill()
            code, again = ask("coordinator", "explain", "1", "--state-dir", str(federation.state_dir))
            assert (code, again["attempts"][-1]["clients"][0]["fate"]) == (0, "included")
            code, told = ask("worker", "doctor", "--config", str(tmp_path / "w1.toml"), *patience)
            assert code == 3
            assert [each["check"] for each in told["findings"] if each["level"] == "fault"] == ["network"]

            terminal.shows("silent for")
            federation.start_coordinator()
            terminal.until(
                lambda: not any("silent" in line for line in terminal.picture), "the coordinator is back"
            )
            assert terminal.settings_now() != terminal.settings  # what is typed is not shown
            terminal.press(b"\x03")
            assert terminal.ended() == 0
            assert terminal.drawn.index("\x1b[?1049h") < terminal.drawn.index("\x1b[?1049l")
            assert terminal.drawn.rindex("\x1b[?25l") < terminal.drawn.rindex("\x1b[?25h")
            assert terminal.settings_now() == terminal.settings
            assert "\x1b[3" not in terminal.drawn  # NO_COLOR
            assert "Traceback" not in terminal.drawn


def test_watch_gives_the_terminal_back_while_it_is_stopped_and_when_it_is_ended() -> None:
    nobody = ["--address", f"127.0.0.1:{free_port()}", "--insecure"]
    with Terminal([sys.executable, "-m", "coordinator", "watch", *nobody], ENVIRONMENT) as terminal:
        terminal.shows("no coordinator answers")
        terminal.send(signal.SIGTSTP)
        terminal.until(lambda: "\x1b[?1049l" in terminal.drawn, "the usual screen is back")
        terminal.until(lambda: terminal.settings_now() == terminal.settings, "what is typed is shown again")
        assert "\x1b[?25h" in terminal.drawn
        terminal.drawn = ""
        terminal.send(signal.SIGCONT)
        terminal.shows("no coordinator answers")
        terminal.send(signal.SIGTERM)
        assert terminal.ended() == 143
        assert terminal.drawn.rindex("\x1b[?1049h") < terminal.drawn.rindex("\x1b[?1049l")
        assert terminal.settings_now() == terminal.settings
