"""What a doctor says: one finding a line, each good, doubtful or wrong, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ssd.daemon.printable import printable

Json = Any


class Level(StrEnum):
    """How bad it is. Values are stable."""

    OK = "ok"
    WARNING = "warning"
    """It works, but will not for long, or not well."""
    FAULT = "fault"
    """The daemon cannot do its work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """What: network, tls, clock, disk, data, gpu, versions, ports … Stable."""
    level: Level
    text: str
    advice: str = ""
    """What to do next; empty if nothing has to be done."""


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, text)


def warning(check: str, text: str, advice: str) -> Finding:
    """Worth a look."""
    return Finding(check, Level.WARNING, text, advice)


def fault(check: str, text: str, advice: str) -> Finding:
    """Has to be put right."""
    return Finding(check, Level.FAULT, text, advice)


def healthy(found: Iterable[Finding]) -> bool:
    """Whether nothing is wrong; what is doubtful does not count."""
    return all(each.level is not Level.FAULT for each in found)


def as_json(found: Sequence[Finding]) -> Json:
    """`{"healthy": …, "findings": [{"check", "level", "text", "advice"}]}`."""
    return {
        "healthy": healthy(found),
        "findings": [
            {"check": each.check, "level": each.level.value, "text": each.text, "advice": each.advice}
            for each in found
        ],
    }


def as_lines(found: Sequence[Finding]) -> list[tuple[Level, str]]:
    """A line for each finding, under it what to do, and a summary at the end; with the level to colour it by."""
    width = max((len(each.check) for each in found), default=0)
    lines: list[tuple[Level, str]] = []
    for each in found:
        lines.append((each.level, f"{each.level.value:<7}  {each.check:<{width}}  {printable(each.text)}"))
        if each.advice:
            lines.append((each.level, f"{'':<7}  {'':<{width}}  -> {printable(each.advice)}"))
    faults = sum(each.level is Level.FAULT for each in found)
    doubtful = sum(each.level is Level.WARNING for each in found)
    worst = Level.FAULT if faults else Level.WARNING if doubtful else Level.OK
    counts = f"{len(found)} checks, {_count(faults, 'fault')}, {_count(doubtful, 'warning')}"
    return [*lines, (worst, counts)]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
