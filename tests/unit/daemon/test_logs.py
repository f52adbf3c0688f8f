"""Log lines: one event per line, facts as fields, nothing secret and nothing large."""

from __future__ import annotations

import ast
import io
import json
import logging
from collections.abc import Iterator
from enum import IntEnum, StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pytest

import coordinator
import worker
from ssd.daemon.logs import configure, event

log = logging.getLogger("coordinator.test")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def as_json(**fields: Any) -> dict[str, Any]:
    """One event through the JSON formatter."""
    stream = io.StringIO()
    configure("debug", "json", stream)
    event(log, logging.INFO, "something_happened", **fields)
    (line,) = stream.getvalue().splitlines()
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def as_text(level: int = logging.INFO, name: str = "something_happened", **fields: Any) -> str:
    """One event through the human formatter, without the time."""
    stream = io.StringIO()
    configure("debug", "human", stream)
    event(log, level, name, **fields)
    (line,) = stream.getvalue().splitlines()
    return line.partition(" ")[2]


def test_an_event_as_json() -> None:
    line = as_json(round=3, client="client-007", ok=True, nothing=None, loss=0.5)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "event": "something_happened",
        "logger": "coordinator.test",
        "round": 3,
        "client": "client-007",
        "ok": True,
        "nothing": None,
        "loss": 0.5,
    }


def test_an_event_for_people() -> None:
    line = as_text(round=3, detail="two words", ok=False, nothing=None, loss=0.123456789, empty="")
    assert line == (
        'INFO    something_happened round=3 detail="two words" ok=no nothing=- loss=0.123457 empty=""'
    )


@pytest.mark.parametrize(
    "secret",
    [
        b"key",
        bytearray(b"key"),
        memoryview(b"key"),
        np.zeros(3, np.float32),
        object(),
        [b"key"],
        {"a": b"key"},
    ],
)
def test_bytes_arrays_and_objects_leave_only_their_kind(secret: object) -> None:
    assert "key" not in json.dumps(as_json(field=secret)["field"])
    assert "0." not in as_text(field=secret)


def test_long_things_are_shortened() -> None:
    line = as_json(text="x" * 2000, many=list(range(1000)), members=frozenset(f"c{n:03}" for n in range(30)))
    assert len(line["text"]) == 501
    assert len(line["many"]) == 21
    assert line["many"][-1] == "… 1000 in all"
    assert line["members"][:2] == ["c000", "c001"]


def test_numbers_of_every_kind_are_numbers() -> None:
    class Level(IntEnum):
        HIGH = 3

    class Word(StrEnum):
        GOOD = "good"

    line = as_json(
        a=np.float32(0.5), b=np.int64(7), c=Level.HIGH, d=Word.GOOD, path=Path("x/y"), e=ValueError("no")
    )
    assert (line["a"], line["b"], line["c"], line["d"]) == (0.5, 7, 3, "good")
    assert (line["path"], line["e"]) == ("x/y", "no")


def test_what_json_has_no_number_for_is_named() -> None:
    line = as_json(a=float("nan"), b=[float("inf")], c={"d": float("-inf")})
    assert (line["a"], line["b"], line["c"]) == ("nan", ["inf"], {"d": "-inf"})


def test_a_field_cannot_forge_an_event_or_a_line() -> None:
    forged = 'x\n12:00:00 INFO round_committed round="9"'
    assert as_json(event="forged", level="critical", detail=forged) | {"time": ""} == {
        "time": "",
        "level": "info",
        "event": "something_happened",
        "logger": "coordinator.test",
        "event_": "forged",
        "level_": "critical",
        "detail": forged,
    }
    assert as_text(detail=forged).count("\n") == 0
    assert "\x1b" not in as_text(detail="\x1b[31m")


def test_fields_may_have_the_names_of_parameters() -> None:
    assert as_json(name="n", logger="l")["name"] == "n"


def test_a_librarys_message_is_one_line_too() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    logging.getLogger("aiohttp").warning("first %s\nsecond", "line")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["text"] == "first line\nsecond"
    assert json.loads(line)["source"] == "aiohttp"


@pytest.mark.parametrize("form", ["json", "human"])
def test_an_events_error_is_told_with_its_traceback(form: Literal["json", "human"]) -> None:
    stream = io.StringIO()
    configure("info", form, stream)
    try:
        raise ValueError("broken")
    except ValueError as error:
        event(log, logging.ERROR, "failed", error, client="c")
    first, *rest = stream.getvalue().splitlines()
    if form == "json":
        line = json.loads(first)
        assert (line["event"], line["client"], rest) == ("failed", "c", [])
        assert "ValueError: broken" in line["traceback"]
    else:
        assert first.endswith("ERROR   failed client=c")
        assert rest[-1] == "ValueError: broken"


def test_a_traceback_of_a_library_stays_inside_its_json_line() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: broken" in json.loads(line)["traceback"]


@pytest.mark.parametrize("daemon", [coordinator, worker], ids=lambda package: package.__name__)
def test_a_daemon_logs_events_and_nothing_else(daemon: ModuleType) -> None:
    """Text that is put together by hand cannot be searched for, and nothing shortens what it holds."""
    (folder,) = daemon.__path__
    found = [
        f"{path}:{node.lineno}"
        for path in Path(folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"debug", "info", "warning", "error", "exception", "critical", "log"}
        and ast.unparse(node.func.value) in {"log", "_log", "logger", "_logger", "logging"}
    ]
    assert found == []


def test_the_level_is_kept_and_chatty_libraries_are_quiet() -> None:
    stream = io.StringIO()
    configure("warning", "json", stream)
    event(log, logging.INFO, "quiet")
    logging.getLogger("aiohttp.access").info("GET /metrics")
    event(log, logging.WARNING, "loud")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["loud"]


def test_auto_is_human_on_a_terminal_and_json_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        configure("info", "auto", stream)
        event(log, logging.ERROR, "broken")
    assert "\x1b[31mERROR" in terminal.getvalue()
    assert json.loads(pipe.getvalue())["event"] == "broken"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    configure("info", "human", terminal)
    event(log, logging.ERROR, "broken")
    assert "\x1b" not in terminal.getvalue()


def test_configuring_again_replaces_the_handler() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("info", "json", first)
    configure("info", "json", second)
    event(log, logging.INFO, "once")
    assert (first.getvalue(), len(second.getvalue().splitlines())) == ("", 1)
