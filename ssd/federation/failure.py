"""What a failed daemon looks like to the person in front of the demo: what happened, its last words, what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ssd.federation.records import DaemonFailed

Json = Any
_HIDDEN = frozenset({"time", "level", "event", "logger", "traceback"})


def describe(failure: DaemonFailed) -> list[str]:
    """Lines to print."""
    lines = [str(failure)]
    if failure.lines:
        lines += ["its last words:", *(f"  {readable(line)}" for line in failure.lines)]
    lines.append(advice(failure))
    if failure.log is not None:
        lines.append(f"The whole log is in {failure.log}; all processes of the demo were stopped.")
    return lines


def readable(line: str) -> str:
    """A JSON log line for people; anything else as it is."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    if not isinstance(record, dict) or "event" not in record:
        return line
    return f"{record.get('level', '')} {record['event']}{_facts(record)}".strip()


def _facts(record: Mapping[str, Json]) -> str:
    facts = "".join(f" {name}={value}" for name, value in record.items() if name not in _HIDDEN)
    trace = record.get("traceback")
    return f"{facts} ({str(trace).splitlines()[-1]})" if trace else facts


def advice(failure: DaemonFailed) -> str:
    """What to try."""
    words = f"{failure}\n" + "\n".join(failure.lines)
    if "No module named" in words:
        return "What to do: the installation is not complete; install the project again (make demo does)."
    if "signal 9" in words or "MemoryError" in words or "out_of_memory" in words:
        return "What to do: the machine probably ran out of memory; close other programs or take fewer --workers."
    if "No space left" in words or "exit code 4" in words or "storage" in words:
        return "What to do: make room on the disk, or name a folder on another one with --out."
    if "nothing has happened" in words:
        return "What to do: the machine may be too busy; try again, or with fewer --workers."
    return "What to do: read the log; run it again with --keep to keep the daemons' state as well."
