"""Every command that the documentation shows exists, with every option it is shown with; every alert is explained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from command_lines import PROGRAMS, check

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def shown() -> Iterator[tuple[str, str]]:
    """Page and line of every command in a fenced block: comments, paths and what stands before it taken off."""
    for page in PAGES:
        for block in FENCED.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                # A prompt of another user, variables, and a path may stand before the program.
                found = re.match(r"\s*(?:sudo -u \S+ )?(?:\w+=\S* )*(?:\S*/)?(ssd(?:-\w+)?)( .*|)$", line)
                if found and found[1] in PROGRAMS and " ─" not in line and "|" not in line:
                    yield page.name, re.sub(r" >{1,2} ?\S+$", "", f"{found[1]}{found[2]}")


SHOWN = sorted(set(shown()))


def test_commands_are_shown() -> None:
    assert len(SHOWN) > 30
    assert {line.split()[0] for _, line in SHOWN} == set(PROGRAMS)


@pytest.mark.parametrize(("page", "line"), SHOWN, ids=lambda value: value[:60])
def test_every_command_and_option_exists(page: str, line: str) -> None:
    check(line)


@pytest.mark.parametrize(
    "line", ["ssd-coordinator stat", "ssd-worker run --gpu", "ssd evaluate a b c", "ssd-coordinator ca tok"]
)
def test_what_does_not_exist_is_noticed(line: str) -> None:
    with pytest.raises(click.UsageError):
        check(line)


def test_the_handbook_explains_every_alert() -> None:
    rules = (ROOT / "deploy" / "prometheus" / "rules" / "alerts.yml").read_text(encoding="utf-8")
    alerts = set(re.findall(r"alert: (\w+)", rules))
    handbook = (ROOT / "docs" / "handbook.md").read_text(encoding="utf-8")
    assert alerts
    assert set(re.findall(r"`(Ssd\w+)`", handbook)) == alerts


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"https?:|mailto:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists():
                broken.append(f"{page.name}: {target}")
            elif anchor and file.suffix == ".md" and anchor not in anchors(file):
                broken.append(f"{page.name}: {target}: no such heading")
    assert not broken


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
