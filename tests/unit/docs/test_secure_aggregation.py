"""docs/secure-aggregation.md explains every abort, and its thresholds are the code's."""

from __future__ import annotations

import re
from pathlib import Path

from ssd.secagg.protocol.errors import AbortReason
from ssd.secagg.protocol.graph import PPM, Level, corrupt, dropouts, smallest_roster, threshold_complete

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "secure-aggregation.md").read_text()


def row(name: str) -> list[int]:
    (line,) = [each for each in PAGE.splitlines() if each.startswith(f"| {name} |")]
    return [int(cell) for cell in line.split("|")[2:-1]]


def test_every_abort_is_explained_and_no_other() -> None:
    assert re.findall(r"^\| `(\w+)` \| [A-Z]", PAGE, re.MULTILINE) == list(AbortReason)


def test_the_table_of_thresholds_is_what_is_computed() -> None:
    participants = row("n")
    fractions = PPM // 10, PPM // 5
    for level in Level:
        computed = [threshold_complete(n, *fractions, level) for n in participants]
        assert row(f"t, `{level}`") == computed
    assert row("may drop out") == [dropouts(n, fractions[1]) for n in participants]


def test_the_table_of_rosters_is_what_is_computed() -> None:
    page = PAGE[PAGE.index("### How many a roster takes") :]
    rows = re.findall(r"^\| (\d+) \|((?: \d+ \|)+)$", page, re.MULTILINE)
    assert len(rows) == 6
    for registered, cells in rows:
        computed = []
        for share in (PPM // 10, PPM // 5):
            feared = corrupt(int(registered), share)
            computed += [feared, *(smallest_roster(feared, PPM // 5, others) for others in (1, 4))]
        assert [int(cell) for cell in cells.split("|")[:-1]] == computed


def test_it_says_that_nobody_outside_has_reviewed_it() -> None:
    assert "Not externally reviewed" in PAGE
