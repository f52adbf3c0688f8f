"""The maps for newcomers name what is there: the README every room, CONTRIBUTING no file that is gone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MAP = (
    (ROOT / "README.md")
    .read_text(encoding="utf-8")
    .partition("## A map of the code")[2]
    .partition("\n## ")[0]
)
RECIPES = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PATH = re.compile(r"`((?:coordinator|worker|ssd|proto|tests|docs|deploy)/[\w./-]+)`")


def section(package: str) -> str:
    """The part of the map that is about one package."""
    return MAP.partition(f"**`{package}/`**")[2].partition("\n**`")[0]


@pytest.mark.parametrize("package", ["coordinator", "worker", "ssd", "proto"])
def test_every_room_is_on_the_map(package: str) -> None:
    rooms = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    named = {name.rpartition("/")[2] for name in re.findall(r"`([\w./]+)`", section(package))}
    assert rooms
    assert rooms <= named


@pytest.mark.parametrize("package", ["coordinator", "worker", "ssd", "proto"])
def test_everything_on_the_map_is_there(package: str) -> None:
    for row in re.findall(r"^\| (`[^|]+) \|", section(package), re.MULTILINE):
        for name in re.findall(r"`([\w./]+)`", row):
            assert (ROOT / package / name).exists(), name


def test_recipes_name_files_that_are_there() -> None:
    named = PATH.findall(RECIPES)
    assert len(named) > 40
    assert not [
        path for path in named if "FAMILY" not in path and "NAME" not in path and not (ROOT / path).exists()
    ]
