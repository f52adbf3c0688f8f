"""`ssd-coordinator track` beside a real run and after it: TensorBoard reads what `rounds --format json` says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from coordinator.cli.main import cli
from processes.federation import ROOT, Federation

pytestmark = pytest.mark.e2e
ROUNDS = 4


def ask(*arguments: str) -> list[Any]:
    """What a command prints as JSON, line by line."""
    done = CliRunner().invoke(cli, [*arguments, "--format", "json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def ask_alone(*arguments: str) -> list[Any]:
    """The same in a process of its own, which neither needs nor loads torch or OpenTelemetry."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "proto")])}
    code = (
        "import sys; from coordinator.cli.main import cli; cli(standalone_mode=False);"
        "assert {'torch', 'opentelemetry'}.isdisjoint(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--format", "json"],
        capture_output=True,
        env=environment,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def scalars(file: str) -> dict[str, dict[int, tuple[float, float]]]:
    """Tag -> step -> (value, wall time)."""
    reader = EventAccumulator(str(Path(file).parent), size_guidance={"scalars": 0})
    reader.Reload()
    return {
        tag: {each.step: (each.value, each.wall_time) for each in reader.Scalars(tag)}
        for tag in reader.Tags()["scalars"]
    }


def test_a_run_while_it_goes_on_and_when_its_coordinator_is_gone(tmp_path: Path) -> None:
    changes = {
        "run.clients": ["a", "b"], "run.rounds": ROUNDS, "run.when_done": "serve", "round.cohort_size": 2,
        "method.config": {"parameters": 64}, "evaluation.every": 2, "evaluation.workers": ["w"],
    }  # fmt: skip
    with Federation(tmp_path, **changes) as federation:
        federation.start_coordinator()
        federation.start_worker("w", ["a", "b"], config={"data.evaluates": True})
        live = str(tmp_path / "live")
        told = ask("track", "--tensorboard", live, "--follow", "--every", "0.3", *federation.verb_arguments)
        assert told[-1]["round"] == ROUNDS
        assert ask("track", "--tensorboard", live, *federation.verb_arguments)[0]["written"] == 0
        (records,) = ask("rounds", *federation.verb_arguments)
        (measured,) = ask("evaluations", *federation.verb_arguments)
    found = scalars(told[-1]["file"])
    assert {each["round"] for each in records} == set(range(1, ROUNDS + 1))
    for each in records:
        for name, value in each["statistics"].items():
            group = "training" if f"training/{name}" in found else "round"
            assert found[f"{group}/{name}"][each["round"]] == (
                pytest.approx(value, rel=1e-6),
                pytest.approx(each["closed_at"]),
            )
        assert found["round/accepted"][each["round"]][0] == each["accepted"] == 2
    assert "training/loss" in found
    assert measured
    for each in measured:
        for name, value in each["values"].items():
            assert found[f"evaluation/{name}"][each["version"]][0] == pytest.approx(value, rel=1e-6)

    (after,) = ask_alone(
        "track", "--tensorboard", str(tmp_path / "after"), "--state-dir", str(federation.state_dir)
    )
    again = scalars(after["file"])
    assert {tag: {step: value for step, (value, _) in steps.items()} for tag, steps in again.items()} == {
        tag: {step: value for step, (value, _) in steps.items()} for tag, steps in found.items()
    }
