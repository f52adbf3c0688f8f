"""The base installation does without PyTorch: what needs an extra says so, and every command line still explains itself."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from ssd.daemon.cli.extras import EXTRA_OF, require, what_is_missing

ROOT = Path(__file__).resolve().parents[4]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"ssd", "coordinator", "worker", "ssd_wire", "ssd_proto", "_typeshed"}


def distribution(requirement: str) -> str:
    return re.split(r"[\[<>=; ]", requirement, maxsplit=1)[0].lower()


def brought_by(extra: str) -> set[str]:
    """The distributions that installing an extra brings, those of extras within it included."""
    found = set()
    for requirement in PROJECT["optional-dependencies"][extra]:
        inner = re.fullmatch(rf"{PROJECT['name']}\[(.*)\]", requirement)
        if inner is None:
            found.add(distribution(requirement))
        else:
            found |= {name for each in inner[1].split(",") for name in brought_by(each)}
    return found


def imported() -> set[str]:
    """Every package of others that a product file imports anywhere."""
    found = set()
    for folder in ("ssd", "coordinator", "worker", "proto/ssd_wire"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {each.name.partition(".")[0] for each in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.partition(".")[0])
    return found - OURS - set(sys.stdlib_module_names)


def test_every_imported_package_is_in_the_base_or_in_an_extra_that_brings_it() -> None:
    homes = metadata.packages_distributions()
    base = {distribution(each) for each in PROJECT["dependencies"]}
    for package in imported():
        names = {name.lower().replace("_", "-") for name in homes[package]}
        if package in EXTRA_OF:
            assert names & brought_by(EXTRA_OF[package]), package
            assert not names & base, package
        else:
            assert names & (base | {"pydantic-core"}), package  # pydantic's own half


def test_the_extra_all_has_everything_that_an_extra_has() -> None:
    extras = set(PROJECT["optional-dependencies"]) - {"all"}
    assert brought_by("all") == set().union(*(brought_by(each) for each in extras))


def test_a_missing_package_is_recognised_wherever_it_was_met() -> None:
    inner = ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")
    outer = RuntimeError("could not start")
    outer.__cause__ = inner
    for error in (inner, outer):
        said = what_is_missing(error)
        assert said is not None
        assert "the package torch" in said
        assert "pip install '.[worker]'" in said
    assert what_is_missing(ModuleNotFoundError("No module named 'x'", name="x")) is None
    assert what_is_missing(ValueError("torch")) is None


def test_what_is_installed_is_not_missing() -> None:
    for extra in set(EXTRA_OF.values()):
        require(extra)


WITHOUT_EXTRAS = f"""
import json, sys
for package in {sorted(EXTRA_OF)!r}:
    sys.modules[package] = None
sys.path[:0] = {[str(ROOT), str(ROOT / "proto")]!r}
"""
PROGRAMS = {"ssd-coordinator": "coordinator.cli.main", "ssd-worker": "worker.cli.main", "ssd": "ssd.cli"}


def without_extras(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_EXTRAS + code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_command_explains_itself_in_the_base_installation(program: str, tmp_path: Path) -> None:
    done = without_extras(
        f"""
import click
from click.testing import CliRunner
from {PROGRAMS[program]} import cli
def commands(command, words):
    yield words
    for name, inner in getattr(command, "commands", {{}}).items():
        yield from commands(inner, [*words, name])
answers = {{}}
for words in commands(cli, []):
    result = CliRunner().invoke(cli, [*words, "--help"])
    answers[" ".join(words)] = (result.exit_code, repr(result.exception))
print(json.dumps(answers))
""",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert len(answers) > 5
    assert {words: answer for words, answer in answers.items() if answer[0] != 0} == {}


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("ssd", ["demo", "--out", "demo"]),
        ("ssd", ["evaluate", "encoder.safetensors", "--data", "digits"]),
        ("ssd", ["partition", "make", "--data", "digits", "--clients", "2", "--alpha", "1", "--out", "p.json"]),
        ("ssd-worker", ["run", "--config", str(ROOT / "deploy/config/worker-digits.toml")]),
        ("ssd-coordinator", ["run", "--insecure"]),
    ],
)  # fmt: skip
def test_what_needs_an_extra_says_which_and_leaves_nothing_behind(
    program: str, words: list[str], tmp_path: Path
) -> None:
    done = without_extras(f"from {PROGRAMS[program]} import main\nsys.exit(main({words!r}))", tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("error: this needs the package "), done.stderr
    assert "pip install '.[worker]' in the project's folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
