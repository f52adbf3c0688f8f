"""docs/protocol.md prints the table of refusals as the code has it."""

from __future__ import annotations

from pathlib import Path

from coordinator.errors import Reason
from coordinator.rpc.serving.status import TABLE

PAGE = Path(__file__).resolve().parents[3] / "docs" / "protocol.md"


def table() -> str:
    lines = ["| reason | status | retry |", "| --- | --- | --- |"]
    for reason, status in TABLE.items():
        lines.append(f"| `{reason.value}` | `{status.code.name}` | {'yes' if status.retry else 'no'} |")
    return "\n".join(lines) + "\n"


def test_every_reason_has_a_status() -> None:
    assert set(TABLE) == set(Reason)


def test_the_page_prints_the_table() -> None:
    assert PAGE.read_text().endswith(table()), (
        "replace the table at the end of docs/protocol.md by:\n" + table()
    )
