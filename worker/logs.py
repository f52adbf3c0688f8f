"""Log lines: one event each, `key=value` for people, JSON for machines.

The event's name is the message; everything else is a field: `log.info("connected", extra=fields(run=run_id))`.
No tensor, key or token is ever a field.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from datetime import UTC, datetime
from typing import Any

_LONGEST_TEXT = 500
_LONGEST_LIST = 20


def fields(**values: Any) -> dict[str, dict[str, Any]]:  # a field may be any plain value
    """The `extra` of a log call."""
    return {"fields": values}


class HumanFormatter(logging.Formatter):
    """`12:30:01 info  worker.driver connected run=ab12 clients=3`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line (and a traceback, if there is one)."""
        when = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
        parts = [when, f"{record.levelname.lower():<7}", record.name, record.getMessage()]
        parts.extend(f"{key}={_human(value)}" for key, value in _fields(record).items())
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        out: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            out["traceback"] = self.formatException(record.exc_info)
        return json.dumps(out, default=str)


def configure_logging(level: str, style: str) -> None:
    """Send the log to standard error. `style`: `human`, `json`, or `auto` (human on a terminal)."""
    human = style == "human" or (style == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(HumanFormatter() if human else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Their debug output is about wires, not about rounds.
    for chatty in ("asyncio", "aiohttp.access", "grpc"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    value = getattr(record, "fields", None)
    if not isinstance(value, dict):
        return {}
    return {key: _plain(item) for key, item in value.items() if item != ""}


def _plain(value: object) -> object:
    """What may stand in a log: text, numbers and short lists; of anything else only the type's name."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str | os.PathLike | BaseException):
        text = str(value)
        return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
    if isinstance(value, list | tuple):
        shown = [_plain(item) for item in value[:_LONGEST_LIST]]
        return shown if len(value) <= _LONGEST_LIST else [*shown, f"{len(value)} in all"]
    return f"<{type(value).__name__}>"


def _human(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return json.dumps(text) if not text or any(character in text for character in ' "=\n') else text
