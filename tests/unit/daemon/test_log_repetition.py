"""A flood of refusals is a few lines and a number."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from ssd.daemon.log_repetition import FEW, MOST_KEYS, PER, WINDOW_SECONDS, Key, Repetition
from ssd.daemon.logs import configure, event, repeatable

log = logging.getLogger("repetition.test")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class Place:
    """A filter with a clock of the test's."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[tuple[str, Key, int]] = []
        self.subject = Repetition(lambda *each: self.told.append(each), lambda: self.now)

    def comes(self, *per: str, name: str = "refused", times: int = 1) -> int:
        """How many of so many records are written."""
        passed = 0
        for _ in range(times):
            record = logging.LogRecord("x", logging.INFO, "", 0, name, None, None)
            if per:
                setattr(record, PER, per)
            passed += self.subject.filter(record)
        return passed


def test_the_first_few_of_a_minute_are_written_and_the_rest_is_a_number() -> None:
    place = Place()
    assert place.comes("mallory", "role", times=50_000) == FEW
    assert place.told == []
    place.now += WINDOW_SECONDS
    assert place.comes(name="round_opened") == 1
    assert place.told == [("refused", ("mallory", "role"), 50_000 - FEW)]
    assert place.comes("mallory", "role", times=7) == FEW


def test_each_holder_and_each_reason_has_lines_of_its_own() -> None:
    place = Place()
    place.comes("mallory", "role", times=1000)
    assert place.comes("alice", "role") == place.comes("mallory", "no_session") == 1
    assert place.comes("mallory", "role", name="other_event") == 1
    assert place.comes(times=1000) == 1000, "what nobody can repeat is always written"


def test_a_quiet_minute_tells_nothing() -> None:
    place = Place()
    place.comes("mallory", "role", times=FEW)
    place.now += WINDOW_SECONDS
    assert place.comes() == 1
    assert place.told == []


def test_many_names_take_no_more_memory_and_few_lines() -> None:
    place = Place()
    written = sum(place.comes(f"name-{number}", "role") for number in range(5 * MOST_KEYS))
    assert written == MOST_KEYS + FEW
    assert len(place.subject._windows) == MOST_KEYS + 1
    place.now += WINDOW_SECONDS
    place.comes()
    assert place.told == [("refused", ("others",), 4 * MOST_KEYS - FEW)]
    assert not place.subject._windows


def test_a_configured_log_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    for _ in range(20_000):
        repeatable(log, logging.INFO, "refused", ("mallory", "role"), reason="role")
    event(log, logging.INFO, "round_opened")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["refused"] * FEW + ["round_opened"]
    later = [handler.filters[0] for handler in logging.getLogger().handlers]
    for each in later:
        assert isinstance(each, Repetition)
        monkeypatch.setattr(each, "_now", lambda: 1e12)
    event(log, logging.INFO, "round_committed")
    *_, summary, last = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (summary["event"], summary["of"], summary["about"], summary["not_written"]) == (
        "repeated", "refused", ["mallory", "role"], 20_000 - FEW,
    )  # fmt: skip
    assert last["event"] == "round_committed"
