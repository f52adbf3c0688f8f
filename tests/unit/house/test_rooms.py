"""The sizes and arrows of the house: small rooms, short files, no ring of imports, no root configuration handed round.

Every limit has a table of present exceptions. An exception gives the most that is allowed of one thing, and of a
file a little more than it has. A figure above it fails the test, and so does one that the limit allows: an exception
goes with its reason.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[3]
PRODUCT = ("coordinator", "worker", "ssd", "proto/ssd_wire")
CODE = (*PRODUCT, "tests", "docs/tools", "deploy")

MAX_FILES_IN_A_FOLDER = 13
"""Code files beside the room's own sign, `__init__.py`."""
MAX_LINES_OF_A_FILE = 460
MAX_LINES_OF_A_FUNCTION = 80
MAX_CONSTRUCTOR_ARGUMENTS = 12
ROOT_CONFIGURATIONS = frozenset({"CoordinatorConfig", "WorkerConfig"})
COMPOSES = ("app.py", "config", "cli")
"""The places of a daemon that may read the whole configuration: everybody else is handed a section or a value."""

LONG_FILES: dict[str, int] = {}

LONG_FUNCTIONS: dict[str, int] = {}

WIDE_CONSTRUCTORS: dict[str, int] = {}

TAKES_THE_ROOT: dict[str, int] = {}

RINGS: dict[str, int] = {}


class Source(NamedTuple):
    """One code file: where it lies, its number of lines and its tree."""

    path: str
    lines: int
    tree: ast.Module


@cache
def sources() -> tuple[Source, ...]:
    """Every code file that people write. Generated code and caches are left out."""
    found = []
    for top in CODE:
        for file in sorted((ROOT / top).rglob("*.py")):
            text = file.read_text()
            found.append(Source(file.relative_to(ROOT).as_posix(), len(text.splitlines()), ast.parse(text)))
    return tuple(found)


def product(path: str) -> bool:
    """Whether a file is part of what is installed."""
    return any(path.startswith(f"{top}/") for top in PRODUCT)


def functions(
    tree: ast.AST, within: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of a tree under its full name, such as `Class.method` or `outer.inner`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield within + node.name, node
            yield from functions(node, f"{within}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{within}{node.name}.")
        else:
            yield from functions(node, within)


def files_per_folder() -> Counter[str]:
    """How many code files lie side by side in each folder."""
    names = [Path(source.path) for source in sources()]
    return Counter(name.parent.as_posix() for name in names if name.name != "__init__.py")


def lines_per_file() -> dict[str, int]:
    """How long each file is."""
    return {source.path: source.lines for source in sources()}


def lines_per_function() -> dict[str, int]:
    """How long each function is, from its `def` to its last line."""
    return {
        f"{source.path}::{name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for source in sources()
        for name, node in functions(source.tree)
    }


def arguments_per_constructor() -> dict[str, int]:
    """How many arguments each class of the product takes that writes its own constructor.

    A record's fields are not counted: a record has no written constructor.
    """
    found = {}
    for source in sources():
        if product(source.path):
            for name, node in functions(source.tree):
                if node.name == "__init__":
                    own = node.args
                    found[f"{source.path}::{name.removesuffix('.__init__')}"] = (
                        len([*own.posonlyargs, *own.args, *own.kwonlyargs]) - 1
                    )
    return found


def takes_the_root() -> dict[str, int]:
    """How many parameters of functions outside the places that compose name a daemon's whole configuration."""
    found: Counter[str] = Counter()
    for source in sources():
        place = source.path.split("/")
        if not product(source.path) or place[1] in COMPOSES:
            continue
        for name, node in functions(source.tree):
            own = node.args
            given = [*own.posonlyargs, *own.args, *own.kwonlyargs, own.vararg, own.kwarg]
            for annotation in (argument.annotation for argument in given if argument is not None):
                if annotation is not None and ROOT_CONFIGURATIONS & set(words(annotation)):
                    found[f"{source.path}::{name}"] += 1
    return dict(found)


def words(annotation: ast.expr) -> Iterator[str]:
    """The names inside an annotation, whether written as code, as an attribute or in quotes."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from words(ast.parse(node.value, mode="eval").body)


def rings(arrows: Mapping[str, set[str]]) -> list[tuple[str, ...]]:
    """The groups of modules that all reach each other along the arrows (strongly connected components).

    The order in which Kosaraju's two walks visit the modules does not change the groups, only their order.
    """
    backwards: dict[str, set[str]] = {module: set() for module in arrows}
    for module, imported in arrows.items():
        for target in imported:
            backwards[target].add(module)

    def walk(start: str, along: Mapping[str, set[str]], seen: set[str]) -> list[str]:
        """Return what can be reached from `start` and was not seen, each after all that it leads to."""
        done: list[str] = []
        stack = [(start, iter(sorted(along[start])))]
        seen.add(start)
        while stack:
            module, rest = stack[-1]
            following = next((target for target in rest if target not in seen), None)
            if following is None:
                done.append(module)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(sorted(along[following]))))
        return done

    seen: set[str] = set()
    order = [module for start in sorted(arrows) if start not in seen for module in walk(start, arrows, seen)]
    seen = set()
    groups = [tuple(sorted(walk(start, backwards, seen))) for start in reversed(order) if start not in seen]
    return [group for group in groups if len(group) > 1 or group[0] in arrows[group[0]]]


@cache
def import_arrows() -> dict[str, set[str]]:
    """Which file of the product imports which others. Imports for annotations only are counted, too."""
    graph = grimp.build_graph("coordinator", "worker", "ssd", "ssd_proto", "ssd_wire")
    return {
        module: graph.find_modules_directly_imported_by(module) & graph.modules for module in graph.modules
    }


def complaints(measured: Mapping[str, int], limit: int, exceptions: Mapping[str, int]) -> list[str]:
    """What is wrong with the measured figures, one sentence each."""
    over = {place: figure for place, figure in measured.items() if figure > limit}
    found = []
    for place, figure in sorted(over.items(), key=lambda item: (-item[1], item[0])):
        if place not in exceptions:
            found.append(f"{place}: {figure}, at most {limit} are allowed")
        elif figure > exceptions[place]:
            found.append(f"{place}: {figure}, more than its exception of {exceptions[place]}")
    found += [
        f"{place}: within the limit, remove its exception" for place in sorted(set(exceptions) - set(over))
    ]
    return found


def refuse(found: list[str], what: str) -> None:
    """Fail with every complaint on a line of its own."""
    assert not found, "\n".join([f"{what}:", *found])


def test_no_folder_holds_more_files_than_one_sees_at_a_glance():
    refuse(complaints(files_per_folder(), MAX_FILES_IN_A_FOLDER, {}), "code files in a folder")


def test_no_file_is_too_long():
    refuse(complaints(lines_per_file(), MAX_LINES_OF_A_FILE, LONG_FILES), "lines of a file")


def test_no_function_is_too_long():
    refuse(complaints(lines_per_function(), MAX_LINES_OF_A_FUNCTION, LONG_FUNCTIONS), "lines of a function")


def test_no_class_is_built_from_too_many_things():
    measured = arguments_per_constructor()
    refuse(complaints(measured, MAX_CONSTRUCTOR_ARGUMENTS, WIDE_CONSTRUCTORS), "constructor arguments")


def test_only_what_composes_a_daemon_takes_its_whole_configuration():
    refuse(complaints(takes_the_root(), 0, TAKES_THE_ROOT), "parameters that take a whole configuration")


def test_files_do_not_import_each_other_in_a_ring():
    found = {" ".join(ring): len(ring) for ring in rings(import_arrows())}
    refuse(complaints(found, 0, {}), "files in a ring of imports")


def test_every_room_says_what_it_is_for():
    rooms = {Path(source.path).parent for source in sources() if product(source.path)}
    silent = [
        f"{room.as_posix()}: no docstring in its __init__.py"
        for room in sorted(rooms)
        if not (ROOT / room / "__init__.py").is_file()
        or not ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text()))
    ]
    refuse(silent, "rooms without a sign")


@pytest.mark.parametrize(
    ("measured", "exceptions", "said"),
    [
        ({"a": 5}, {}, []),
        ({"a": 6}, {}, ["a: 6, at most 5 are allowed"]),
        ({"a": 6}, {"a": 6}, []),
        ({"a": 7}, {"a": 6}, ["a: 7, more than its exception of 6"]),
        ({"a": 6}, {"a": 7}, []),
        ({"a": 5}, {"a": 6}, ["a: within the limit, remove its exception"]),
        ({}, {"gone": 6}, ["gone: within the limit, remove its exception"]),
    ],
)
def test_a_figure_over_the_limit_and_a_stale_exception_are_both_reported(measured, exceptions, said):
    assert complaints(measured, 5, exceptions) == said


def test_rings_are_found_whether_short_or_long():
    arrows = {
        "a": {"b"},
        "b": {"c"},
        "c": {"b", "d"},
        "d": {"e"},
        "e": {"f"},
        "f": {"d", "g"},
        "g": set(),
        "h": {"h"},
    }
    assert sorted(rings(arrows)) == [("b", "c"), ("d", "e", "f"), ("h",)]


def test_the_product_is_measured_at_all():
    measured = {source.path for source in sources()}
    assert {"coordinator/app.py", "worker/app.py", "ssd/cli.py", "tests/unit/house/test_rooms.py"} <= measured
    assert "ssd.digest" in import_arrows()
    assert "ssd.digest" in import_arrows()["ssd.updates.codec"]


def test_a_whole_configuration_is_seen_however_its_annotation_is_written():
    def within(annotation: str) -> set[str]:
        return set(words(ast.parse(annotation, mode="eval").body))

    for annotation in ("WorkerConfig", "sections.WorkerConfig", "'WorkerConfig'", "WorkerConfig | None"):
        assert "WorkerConfig" in within(annotation)
    assert "WorkerConfig" not in within("WorkerConfiguration")
