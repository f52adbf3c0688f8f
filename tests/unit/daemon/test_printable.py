"""What strangers write, made harmless: for every character there is."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest

from ssd.daemon.logs import HumanFormatter, JsonFormatter, event
from ssd.daemon.printable import (
    STAND_IN,
    harmless,
    json_text,
    printable,
    printable_but_styled,
    printable_lines,
)
from ssd_wire.reasons import OTHER, named_well, task_failure

HOSTILE = (
    "\x1b]0;owned\x07", "\x1b[2J\x1b[H", "\x9b2J", "\x9d0;owned\x9c", "\x7f\x7f", "\r12:00:00 INFO forged", "\n", "a\tb",
    "\u202eevil", "\u2066x\u2069", "\u200f", "\u2028line", "\u2029", "\u0085next", "\ufeff", "\U000e0041", "\x00", "\ud800",
)  # fmt: skip


def test_no_character_that_is_not_printable_comes_through() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    for text in (
        printable(every),
        json_text(every),
        printable_but_styled(every),
        *harmless({every: [every]}),
    ):
        assert text.isprintable()
    assert printable("Zürich, 東京: 3 × 4") == "Zürich, 東京: 3 × 4"


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_json_spells_it_out_and_stays_the_json_of_the_same_value(text: str) -> None:
    value = {"name": text, text: [1, None, {"deep": text}]}
    line = json_text(value)
    assert line.isprintable()
    assert json.loads(line) == value


def test_lines_stay_lines_and_our_own_colours_stay() -> None:
    assert printable_lines("one\ntwo\x1b[2J\r") == f"one\ntwo{STAND_IN}[2J{STAND_IN}"
    assert printable_but_styled("\x1b[31mre\x1b[2Jd\x1b[0m") == f"\x1b[31mre{STAND_IN}[2Jd\x1b[0m"
    assert harmless({"a\x1b": ("b\x07", 1, None, True, 0.5)}) == {
        f"a{STAND_IN}": [f"b{STAND_IN}", 1, None, True, 0.5]
    }


@pytest.mark.parametrize("formatter", [HumanFormatter(colour=False), JsonFormatter()])
@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_neither_form_of_the_log_shows_it(formatter: logging.Formatter, text: str) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    log = logging.getLogger("printable.test")
    log.addHandler(handler)
    # Half a character in what pytest captures would end a process of a parallel run.
    log.propagate = False
    try:
        event(log, logging.ERROR, "happened", detail=text, many={text: [text]}, **{text: 0.5})
        try:
            raise ValueError(text)
        except ValueError as error:
            event(log, logging.ERROR, "failed", error)
        log.error("a library says %s", text)
    finally:
        log.removeHandler(handler)
        log.propagate = True
    lines = stream.getvalue().splitlines(keepends=True)
    assert all(line.removesuffix("\n").isprintable() for line in lines), lines


def test_what_a_worker_calls_a_failure_or_a_measure_is_a_word() -> None:
    for text in (*HOSTILE, "<b>", "", "x" * 129):
        assert task_failure(text) == OTHER
        assert named_well({text: 1.0, "knn@20/h": 0.5}) == {"knn@20/h": 0.5}
    assert task_failure("out_of_memory") == "out_of_memory"
