"""Log lines: one event per line, with its facts as fields; for people on a terminal, as JSON otherwise.

No tensor, key or token ever reaches a log: of bytes, arrays and other objects `event` keeps only the type's name, and
long text and lists are shortened.
"""

from __future__ import annotations

import logging
import math
import numbers
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, Literal

from ssd.daemon.log_repetition import PER, Repetition
from ssd.daemon.printable import json_text, printable_lines

Json = Any
_FIELDS = "ssd_fields"
_LONGEST_TEXT = 500
_LONGEST_LIST = 20
_COLOURS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31"}


def event(
    logger: logging.Logger,
    level: int,
    name: str,
    error: BaseException | None = None,
    /,
    **fields: object,
) -> None:
    """Log one event.

    Args:
        logger: whose event it is.
        level: `logging.INFO` and so on.
        name: snake_case, stable: what log searches look for.
        error: whose traceback goes along; None: there is none.
        fields: facts. Text, numbers, booleans, None, and short lists or mappings of them.
    """
    if logger.isEnabledFor(level):
        plain = {key: _plain(value) for key, value in fields.items()}
        logger.log(level, name, extra={_FIELDS: plain}, exc_info=error)


def repeatable(
    logger: logging.Logger, level: int, name: str, per: Sequence[str], /, **fields: object
) -> None:
    """Log one event that others can cause as often as they like: at most a few a minute about the same one.

    Args:
        logger: as of `event`.
        level: as of `event`.
        name: as of `event`.
        per: whom and what it is about; how many were not written is told per each of these.
        fields: as of `event`.
    """
    if logger.isEnabledFor(level):
        plain = {key: _plain(value) for key, value in fields.items()}
        about = tuple(text[:_LONGEST_TEXT] for text in per)
        logger.log(level, name, extra={_FIELDS: plain, PER: about})


def configure(level: str, form: Literal["auto", "human", "json"], stream: IO[str] | None = None) -> None:
    """Send all logging to `stream` (standard error if None) in the given form; replaces earlier set-ups."""
    stream = stream or sys.stderr
    terminal = stream.isatty()
    human = form == "human" or (form == "auto" and terminal)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        HumanFormatter(colour=terminal and not os.environ.get("NO_COLOR")) if human else JsonFormatter()
    )
    handler.addFilter(Repetition(_say_left_out))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Their debug output is about wires, not about rounds.
    for chatty in ("asyncio", "aiohttp.access", "grpc"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


def _say_left_out(name: str, about: tuple[str, ...], count: int) -> None:
    event(
        logging.getLogger(__name__),
        logging.WARNING,
        "repeated",
        of=name,
        about=list(about),
        not_written=count,
    )


class HumanFormatter(logging.Formatter):
    """`12:30:01 INFO  round_committed round=3 clients=10`"""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """One line, and below it the traceback if there is one."""
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = f"{record.levelname:<7}"
        if self._colour and record.levelno in _COLOURS:
            level = f"\033[{_COLOURS[record.levelno]}m{level}\033[0m"
        name, fields = _contents(record)
        facts = "".join(f" {_human(key)}={_human(value)}" for key, value in fields.items())
        line = f"{at} {level} {_one_line(name)}{facts}"
        if not record.exc_info:
            return line
        return f"{line}\n{printable_lines(self.formatException(record.exc_info))}"


class JsonFormatter(logging.Formatter):
    """`{"time": "2026-01-01T12:30:01.123Z", "level": "info", "event": "round_committed", "round": 3}`"""

    def format(self, record: logging.LogRecord) -> str:
        """Exactly one line."""
        name, fields = _contents(record)
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Json] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": name,
            "logger": record.name,
        }
        for key, value in fields.items():
            line[f"{key}_" if key in line else key] = _finite(value)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json_text(line, allow_nan=False)


def _contents(record: logging.LogRecord) -> tuple[str, Mapping[str, Json]]:
    fields = getattr(record, _FIELDS, None)
    if fields is None:
        # A library's message: text, not an event of ours.
        return "message", {"source": record.name, "text": record.getMessage()}
    return record.msg, fields


def _plain(value: object) -> Json:
    match value:
        case None | bool():
            return value
        case numbers.Integral():
            return int(value)
        case numbers.Real():
            return float(value)
        case str():
            text = str(value)
            return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
        case Mapping():
            return {str(name): _plain(item) for name, item in value.items()}
        case list() | tuple() | set() | frozenset():
            items = sorted(value, key=str) if isinstance(value, set | frozenset) else list(value)
            kept = [_plain(item) for item in items[:_LONGEST_LIST]]
            return [*kept, f"… {len(items)} in all"] if len(items) > _LONGEST_LIST else kept
        case os.PathLike() | BaseException():
            return _plain(str(value))
    return f"<{type(value).__name__}>"


def _human(value: Json) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_human(key)}:{_human(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_human(item) for item in value) + "]"
    text = str(value)
    quoted = not text or any(character.isspace() or character in '"=' for character in text)
    return json_text(text) if quoted or not text.isprintable() else text


def _one_line(text: str) -> str:
    return text if text.isprintable() else json_text(text)


def _finite(value: Json) -> Json:
    """JSON has no NaN: not a number goes out as its name."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
