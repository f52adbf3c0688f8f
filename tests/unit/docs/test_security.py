"""docs/security.md promises nothing that no test holds: every row of its tables names tests, and they are there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs" / "security.md"
HEADER = "| promise | held by |"
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
TEST = re.compile(r"`(\w+\.py)::((?:\w+::)*\w+)`")


@cache
def named_in(file: Path) -> frozenset[str]:
    """What can be named after a file: functions, and methods as Class::function."""
    found = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}::")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.add(prefix + node.name)

    visit(ast.parse(file.read_text()).body, "")
    return frozenset(found)


def promises(page: str) -> Iterator[tuple[str, str]]:
    """Both cells of every row below a header of promises."""
    inside = False
    for line in page.splitlines():
        if line == HEADER:
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("| ---"):
            promise, _, held_by = line.strip("| ").partition(" | ")
            yield promise, held_by


def problems(page: str, folder: Path = PAGE.parent) -> list[str]:
    """What is wrong with a page that lies in `folder`, one sentence each."""
    found = []
    for text, target in LINK.findall(page):
        file = folder / target
        if not file.is_file():
            found.append(f"{target} does not exist")
        elif named := TEST.fullmatch(text):
            if named[1] != file.name:
                found.append(f"{text} links to {target}")
            elif named[2] not in named_in(file):
                found.append(f"{target} has no test {named[2]}")
        elif file.suffix == ".py":
            found.append(f"{text} names no test of {target}")
    for promise, held_by in promises(page):
        if not any(TEST.fullmatch(text) for text, _ in LINK.findall(held_by)):
            found.append(f"no test holds: {promise}")
    return found


def test_every_promise_is_held_by_tests_that_exist() -> None:
    page = PAGE.read_text()
    assert problems(page) == []
    promised = list(promises(page))
    assert promised
    assert all(promise and promise.endswith(".") for promise, _ in promised)


def test_every_table_of_the_page_is_one_of_promises() -> None:
    """A table with another header would not be looked at."""
    page = PAGE.read_text()
    assert page.count("| --- |") == page.count(HEADER + "\n| --- | --- |\n")


OWN = "../tests/unit/docs/test_security.py"
HELD = "test_security.py::test_every_promise_is_held_by_tests_that_exist"


@pytest.mark.parametrize(
    ("held_by", "said"),
    [
        ("", "no test holds: It is so."),
        (f"`{HELD}`", "no test holds: It is so."),
        (f"[`{HELD}`](../tests/unit/test_gone.py)", "../tests/unit/test_gone.py does not exist"),
        (f"[`{HELD}`](../tests/unit/docs/test_protocol.py)", "links to"),
        (f"[`test_security.py::test_gone`]({OWN})", "has no test test_gone"),
        (f"[`test_security.py::problems`]({OWN})", "has no test problems"),
        (f"[`test_security.py::Gone::test_a`]({OWN})", "has no test Gone::test_a"),
        (f"[tests]({OWN})", "names no test"),
    ],
)
def test_a_promise_that_nothing_holds_is_found(held_by: str, said: str) -> None:
    row = f"{HEADER}\n| --- | --- |\n| It is so. | {held_by} |\n"
    assert any(said in problem for problem in problems(row)), problems(row)


def test_a_promise_that_is_held_is_no_problem() -> None:
    row = f"{HEADER}\n| --- | --- |\n| It is so. | [`{HELD}`]({OWN}) |\n"
    assert problems(row) == []
