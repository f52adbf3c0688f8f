"""docs/exit-codes.md from the code: `python docs/tools/exit_codes_page.py > docs/exit-codes.md` (or `make docs`)."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import click

import coordinator
import worker
from coordinator import errors as coordinator_errors
from coordinator.cli.main import cli as coordinator_cli
from ssd.cli import cli as ssd_cli
from ssd.daemon.cli.help_text import commands
from ssd.daemon.cli.terminal import EXIT_CODES as SSD_CODES
from worker import errors as worker_errors
from worker.cli.main import cli as worker_cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "exit-codes.md"
HEAD = """\
# Exit codes

This page is made from the code by `make docs`. When a program fails, it writes a sentence to standard error that begins
with `error:` and says what to do next.

The same number means the same everywhere: 0 done, 1 a defect (please report it), 2 what you typed or configured, 3 a
refusal by somebody or something else, 4 files and disks, 130 Ctrl-C. A daemon that is stopped by `SIGTERM` or Ctrl-C ends
in good order, with 0. A second signal ends it at once, as `kill -9` does, with a code above 128, and loses nothing either.
Ctrl-C ends `ssd-coordinator watch` with 0.
"""
_SENTENCE = re.compile(r"Exit codes: (.*)\.", re.DOTALL)
Fault = tuple[int, str, str]


def told(command: click.Command) -> dict[int, str]:
    """Exit code -> meaning, as a command's help says them."""
    found = _SENTENCE.search(command.epilog or "")
    assert found is not None, command.name
    parts = re.split(r", (?=\d+ )", " ".join(found[1].split()))
    return {int(number): meaning for number, meaning in (part.split(" ", 1) for part in parts)}


def faults(package: str, root: type[Exception]) -> list[Fault]:
    """(exit code, word, first sentence) of every fault an operator can put right, defined anywhere in a package."""
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found = set()
    for kind in _below(root):
        if kind.__module__.startswith(f"{package}."):
            sentence = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
            found.add((kind.exit_code, kind.code, re.split(r"(?<=\.) ", sentence)[0]))
    return sorted(found)


def _below(kind: type) -> Iterator[type]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)


def _section(program: str, root: click.Command, codes: dict[int, str], known: list[Fault]) -> str:
    lines = [f"\n## {program}\n", "| exit code | meaning |", "| --- | --- |"]
    lines += [f"| {code} | {meaning} |" for code, meaning in codes.items()]
    own: dict[tuple[str, ...], dict[int, str]] = {}
    for path, command in commands(root):
        said = told(command)
        if said != codes:
            own[path] = {code: meaning for code, meaning in said.items() if codes.get(code) != meaning}
    for path, said in own.items():
        lines += [f"\n`{' '.join((program, *path))}`:", "", "| exit code | meaning |", "| --- | --- |"]
        lines += [f"| {code} | {meaning} |" for code, meaning in said.items()]
    if known:
        lines += [
            "\nThese faults end it; the word is the one in its log:",
            "",
            "| exit code | word | meaning |",
            "| --- | --- | --- |",
        ]
        lines += [f"| {code} | `{word}` | {sentence} |" for code, word, sentence in known]
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    return HEAD + "".join(
        (
            _section(
                "ssd-coordinator",
                coordinator_cli,
                coordinator_errors.EXIT_CODES,
                faults(coordinator.__name__, coordinator_errors.OperatorFault),
            ),
            _section(
                "ssd-worker",
                worker_cli,
                worker_errors.EXIT_CODES,
                faults(worker.__name__, worker_errors.OperatorFault),
            ),
            _section("ssd", ssd_cli, SSD_CODES, []),
        )
    )


if __name__ == "__main__":
    print(page(), end="")  # the page is what it is run for
