"""What the command lines of both daemons make of `--set` and of options of their own."""

from __future__ import annotations

import click
import pytest

from ssd.daemon.cli.options import settings_of


def test_an_option_of_its_own_wins_and_one_that_was_not_given_changes_nothing() -> None:
    assignments = ("run.rounds=3", " log.level = debug ", "method.config={ a = 1 }")
    assert settings_of(assignments, {"run.rounds": 5, "log.level": None}) == {
        "run.rounds": 5,
        "log.level": "debug",
        "method.config": "{ a = 1 }",
    }


def test_what_was_typed_is_kept_for_the_loader_to_read() -> None:
    assert settings_of(('worker.name="a=b"',), {}) == {"worker.name": '"a=b"'}


def test_an_assignment_needs_an_equals_sign() -> None:
    with pytest.raises(click.UsageError, match=r"--set run\.rounds: write table\.key=value"):
        settings_of(("run.rounds",), {})
