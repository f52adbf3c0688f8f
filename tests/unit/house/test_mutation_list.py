"""The list of checks that are taken out one by one names what is there: a file that moved would end the whole run."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def mutation() -> ModuleType:
    path = ROOT / "tests" / "mutation" / "mutate_checks.py"
    spec = importlib.util.spec_from_file_location("mutate_checks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutate_checks"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_source_has_a_check_and_every_suite_is_there(mutation: ModuleType) -> None:
    suites = {
        *mutation.SUITE,
        *mutation.FIRST.values(),
        *(name for each in mutation.BRANCHES.values() for name in each[2]),
    }
    assert [name for name in sorted(suites) if not (ROOT / "tests" / name).is_file()] == []
    found = Counter(mutant.source for mutant in (*mutation.mutants(), *mutation.branches()))
    assert {*mutation.SOURCES, *mutation.BRANCHES} == found.keys()
