"""The configuration reference is the code's; every variable it names sets what it says, every mark of change is true."""

from __future__ import annotations

from typing import Any

import pytest

from configuration_page import PAGE, _field_texts, changes, page
from coordinator.config.sections import MUTABLE, CoordinatorConfig, is_mutable
from ssd.daemon.config_sources import gather
from ssd.daemon.setting_text import Setting, tables
from worker.config.sections import WorkerConfig

ROOTS = {"coordinator": CoordinatorConfig, "worker": WorkerConfig}


def settings(root: Any) -> list[Setting]:
    return [setting for table in tables(root) for setting in table.settings]


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "docs/configuration.md is not what the code reads: make docs"


@pytest.mark.parametrize("daemon", ROOTS)
def test_every_setting_is_explained(daemon: str) -> None:
    root = ROOTS[daemon]
    assert [setting.name for setting in settings(root) if not setting.text] == []
    assert [table.name for table in tables(root) if not table.text] == []


@pytest.mark.parametrize("daemon", ROOTS)
def test_every_variable_that_is_named_sets_its_setting(daemon: str) -> None:
    root = ROOTS[daemon]
    names = {table.name: lambda key: True for table in tables(root) if table.settings}
    for setting in settings(root):
        found = gather(None, {}, {setting.variable: "x"}, names)
        assert found.given == {(setting.table, setting.key): setting.variable}


def test_what_is_said_to_change_may_change_and_nothing_else() -> None:
    for table in tables(CoordinatorConfig):
        for setting in table.settings:
            said = "may change" in f"{table.text} {setting.text}".lower() or "never after" in setting.text
            assert said == is_mutable(setting.name), setting.name
    shown = {setting.name: changes(setting) for setting in settings(CoordinatorConfig)}
    assert shown["run.rounds"] == "may grow"
    assert {name for name, word in shown.items() if word == "yes"} == {
        name for name in shown if name in MUTABLE or f"{name.split('.')[0]}.*" in MUTABLE
    }


def test_docstrings_of_a_derived_class_are_found_with_those_it_inherits() -> None:
    from ssd.methods.self_supervised.config import SsdConfig

    found = _field_texts(SsdConfig)
    assert found["alpha"].startswith("Factor on a client's own dimensions")
    assert found["drop_last"].startswith("Drop an epoch's last")
