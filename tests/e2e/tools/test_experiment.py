"""`ssd experiment` with real daemons: a grid killed outright and run again comes to the same models."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from processes.federation import PATIENCE, ROOT, read_events
from ssd.experiment.stale import daemons_of

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
]
EXAMPLE = ROOT / "deploy" / "experiments" / "digits.toml"
CELLS = ["fed_align_uniform/seed-1", "ssd/seed-1"]
BROKEN = """
[[methods]]
name = "ssd"
label = "broken"
coordinator = { limits = { max_client_weight = 1 } }
"""
TIMES = frozenset({"seconds", "wall_seconds", "processor_seconds", "round_seconds", "resumed"})


def bare(folder: Path, more: str = "") -> Path:
    """The example without the rows that need no method."""
    file = folder / "bare.toml"
    file.write_text(EXAMPLE.read_text().replace("seeds = [1, 2]", "seeds = [1, 2]\nreferences = []") + more)
    return file


def start(out: Path, *arguments: str, file: Path) -> subprocess.Popen[str]:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A runner in the background of a shell ignores Ctrl-C, and its children with it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "proto")])}
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ssd",
            "experiment",
            str(file),
            "--allow-dirty",
            "--out",
            str(out),
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def finish(out: Path, *arguments: str, file: Path, code: int = 0) -> str:
    runner = start(out, *arguments, file=file)
    text, _ = runner.communicate(timeout=8 * PATIENCE)
    assert runner.returncode == code, text
    return text


def results(out: Path) -> dict[str, dict[str, Any]]:
    folder = out / "cells" / "dirichlet-0.1"
    return {
        cell: json.loads((folder / cell / "result.json").read_text())
        for cell in CELLS
        if (folder / cell / "result.json").exists()
    }


def timeless(value: Any) -> Any:
    """Without what may differ between two runs of the same."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def committed(log: Path) -> list[str]:
    """The digest of every version whose commit a coordinator has told."""
    return [str(event["digest"]) for event in read_events(log, "round_committed")]


def until(condition: Callable[[], object], runner: subprocess.Popen[str] | None, what: str) -> None:
    deadline = time.monotonic() + 2 * PATIENCE
    while not condition():
        assert runner is None or runner.poll() is None, f"ended early: {runner.communicate()[0]}"
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)


@dataclass(frozen=True)
class Grid:
    """An experiment that ran without interruption, one cell of which cannot succeed."""

    out: Path
    file: Path
    text: str


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    root = tmp_path_factory.mktemp("grid")
    file = bare(root, BROKEN)
    text = finish(root / "out", "--only", "seed-1", "--jobs", "3", file=file, code=3)
    return Grid(root / "out", file, text)


def test_every_cell_comes_with_all_its_results(grid: Grid) -> None:
    found = results(grid.out)
    assert list(found) == CELLS
    for result in found.values():
        assert [record["round"] for record in result["rounds"]] == [1, 2, 3, 4]
        assert result["model_digest"] == result["rounds"][-1]["model_digest"]
        assert set(result["evaluations"]) == {"0", "2", "4"}
        assert result["measures"][""]["values"]["linear_probe_all"] > 0.5
        assert result["cost"]["processor_seconds"] > 0
    first, second = found.values()
    assert first["model_digest"] != second["model_digest"]
    assert first["partition_digest"] == second["partition_digest"]
    assert first["evaluations"]["0"] == second["evaluations"]["0"], "the same initial weights"
    for cell in CELLS:
        assert not list((grid.out / "cells" / "dirichlet-0.1" / cell).rglob("coordinator")), (
            "only results stay"
        )


def test_a_failed_cell_does_not_stop_the_others(grid: Grid) -> None:
    assert "failed: dirichlet-0.1/broken/seed-1: " in grid.text
    assert "1 of 3 cells failed" in grid.text
    assert list(results(grid.out)) == CELLS


def test_other_settings_are_refused_where_there_are_results(grid: Grid, tmp_path: Path) -> None:
    file = bare(tmp_path)
    file.write_text(file.read_text().replace("lr = 0.05", "lr = 0.06"))
    text = finish(grid.out, "--only", "seed-1", file=file, code=3)
    assert "config.lr: 0.05 there, 0.06 now" in text


def test_a_grid_killed_half_way_and_run_again_comes_to_the_same_models(grid: Grid, tmp_path: Path) -> None:
    out, expected, file = tmp_path / "out", results(grid.out), bare(tmp_path)
    runner = start(out, "--only", "seed-1", file=file)
    second = out / "cells" / "dirichlet-0.1" / "ssd" / "seed-1"
    until(lambda: len(committed(second / "coordinator.log")) >= 2, runner, "the second cell is half-way")
    running = daemons_of(second)
    assert len(running) >= 2
    runner.kill()
    runner.communicate()
    first_log = len(committed(second / "coordinator.log"))
    text = finish(out, "--only", "seed-1", file=file)
    assert "1 of 2 cells were finished before" in text
    again = results(out)
    assert again["ssd/seed-1"]["cost"]["resumed"] is True
    assert len(committed(second / "coordinator.log")) == 4 >= first_log, "no round was done twice"
    for cell in CELLS:
        ours, theirs = timeless(again[cell]), timeless(expected[cell])
        for name in ("model_digest", "partition_digest", "measures", "evaluations", "clients"):
            assert ours[name] == theirs[name], (cell, name)
    assert daemons_of(out) == []
    assert "2 of 2 cells were finished before" in finish(out, "--only", "seed-1", file=file)


def test_a_cell_that_was_killed_after_its_last_round_is_only_taken_out(tmp_path: Path) -> None:
    file = tmp_path / "synthetic.toml"
    file.write_text(
        """
        experiment = { name = "synthetic", seeds = [7], device = "cpu", workers = 2 }
        data = { kind = "none" }
        settings = [{ name = "all", clients = 4, rounds = 3 }]
        methods = [{ name = "synthetic", measured = false }]
        evaluation = { every = 1, measures = [] }
        """
    )
    out = tmp_path / "out"
    cell = out / "cells" / "all" / "synthetic" / "seed-7"
    finish(out, "--keep", file=file)
    first = json.loads((cell / "result.json").read_text())
    assert set(first["evaluations"]) == {"0", "1", "2", "3"}
    (cell / "result.json").unlink()
    finish(out, file=file)
    again = json.loads((cell / "result.json").read_text())
    assert again["cost"]["resumed"] is True
    kept = {*first} - {"cost", "clients", "code"}  # what it took, who hosted whom in the end
    assert {name: again[name] for name in kept} == {name: first[name] for name in kept}
    assert again["cost"]["round_seconds"] == first["cost"]["round_seconds"]
    assert len(committed(cell / "coordinator.log")) == 3, "no round was done twice"
    assert not (cell / "coordinator").exists()


def test_the_rows_that_need_no_method_are_made_first_and_leave_no_room_or_some(tmp_path: Path) -> None:
    """The example's claim of 40 points of linear probe: no dealing of images gains as much."""
    claim = """
        [[claims]]
        name = "impossible"
        text = "SSD gains 40 points"
        measure = "linear_probe_all"
        method = "ssd"
        against = "fed_align_uniform"
        threshold = 0.4
    """
    file, out = tmp_path / "rows.toml", tmp_path / "out"
    file.write_text(EXAMPLE.read_text().replace("seeds = [1, 2]", "seeds = [1]") + claim)
    text = finish(out, "--jobs", "2", file=file, code=3)
    assert "the reference rows leave no room for 1 claim(s)" in text
    folder = out / "cells" / "dirichlet-0.1"
    rows = ("fed_align_uniform", "chance", "raw-pixels", "untrained", "even", "one-place")
    found = {label: json.loads((folder / label / "seed-1" / "result.json").read_text()) for label in rows}
    assert not (folder / "ssd").exists()
    base = found["fed_align_uniform"]
    zero = base["evaluations"]["0"]["linear_probe_all"]
    assert found["untrained"]["measures"][""]["values"]["linear_probe_all"] == zero
    assert sorted(found["even"]["split"]["sizes"].values()) == [287, 287, 287, 288, 288]
    assert found["one-place"]["split"]["sizes"] == {"client-000": 1437}
    assert found["even"]["measures"][""]["values"]["uniformity_clients"] == 5, (
        "the pairs of the uneven clients"
    )
    finish(out, "--without-room", file=file)
    assert (folder / "ssd" / "seed-1" / "result.json").exists()


def test_an_interrupted_experiment_leaves_no_process(grid: Grid, tmp_path: Path) -> None:
    out = tmp_path / "out"
    runner = start(out, "--only", "ssd/seed-2", file=bare(tmp_path))
    log = out / "cells" / "dirichlet-0.1" / "ssd" / "seed-2" / "coordinator.log"
    until(lambda: committed(log), runner, "a round is committed")
    runner.send_signal(signal.SIGINT)
    text, _ = runner.communicate(timeout=PATIENCE)
    assert runner.returncode == 130, text
    assert daemons_of(out) == []
    other = results(grid.out)["ssd/seed-1"]["rounds"][0]["model_digest"]
    assert not other.startswith(committed(log)[0]), "another seed trains another model"
