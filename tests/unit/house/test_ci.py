"""The CI definition says nothing that the Makefile does not do, and the lowest versions are those of pyproject.toml."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import lowest_versions

ROOT = Path(__file__).resolve().parents[3]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def jobs() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(WORKFLOW.read_text())["jobs"]


def commands(job: dict[str, Any]) -> list[str]:
    """Every command of a job, once for each cell of its matrix."""
    matrix = job.get("strategy", {}).get("matrix", {})
    cells = [dict(zip(matrix, values, strict=True)) for values in itertools.product(*matrix.values())]
    found = []
    for step in job["steps"]:
        for cell in cells if "run" in step else ():
            said = step["run"]
            for name, value in cell.items():
                said = said.replace("${{ matrix." + name + " }}", str(value))
            found.append(said)
    return found


@pytest.mark.parametrize("job", jobs())
def test_every_command_is_a_target_of_the_makefile(job: str) -> None:
    said = commands(jobs()[job])
    assert said
    for command in said:
        made = re.fullmatch(r"make ([a-z-]+)", command)
        assert made is not None, command
        assert made[1] in TARGETS, command


def test_lint_and_every_part_of_the_suite_run_on_every_push() -> None:
    pushed = {each for job in jobs().values() if "if" not in job for each in commands(job)}
    assert {"make lint", "make test-unit", "make test-daemons"} <= pushed


def test_what_takes_long_runs_on_a_schedule_and_only_there() -> None:
    # YAML reads a bare `on` as true.
    assert yaml.safe_load(WORKFLOW.read_text())[True]["schedule"]
    scheduled = {
        each
        for job in jobs().values()
        if job.get("if") == "github.event_name == 'schedule'"
        for each in commands(job)
    }
    assert "make test-long" in scheduled
    assert "make test-long" not in {
        each for job in jobs().values() if "if" not in job for each in commands(job)
    }


def test_ci_here_runs_what_the_readme_says() -> None:
    run = (ROOT / ".ci" / "run").read_text()
    assert "exec make test\n" in run
    parts = re.search(r"^test: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert parts is not None
    assert parts[1].split() == ["lint", "test-unit", "test-daemons"]


def test_every_target_is_told_of_by_make_help() -> None:
    told = set(re.findall(r'@echo "make ([a-z-]+) ', (ROOT / "Makefile").read_text()))
    assert TARGETS - {"help"} == told


def test_the_lowest_versions_are_current() -> None:
    assert lowest_versions.PAGE.read_text() == lowest_versions.lowest()
