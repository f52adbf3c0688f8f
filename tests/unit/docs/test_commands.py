"""Every command that the documentation shows exists, with every option it is shown with; every alert is explained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pages.command_lines import PROGRAMS, check
from pages.docs_pages import Block, blocks, without_comment
from pages.docs_stories import NOT_EXECUTED, NOT_EXECUTED_PLACES, STORIES, blocks_at, left_out, told
from pages.docs_stories import shown as shown_anywhere

ROOT = Path(__file__).resolve().parents[3]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
LINKED = (*PAGES, *sorted({*ROOT.glob("*.md"), *(ROOT / "docs").glob("*/*.md")} - {*PAGES}))
"""All pages that link to others, those that show no commands of ours included."""
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def shown() -> Iterator[tuple[str, str]]:
    """Page and line of every command in a fenced block: comments, paths and what stands before it taken off."""
    for page in PAGES:
        for block in FENCED.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                # A prompt of another user, variables, and a path may stand before the program.
                found = re.match(r"\s*(?:sudo -u \S+ )?(?:\w+=\S* )*(?:\S*/)?(ssd(?:-\w+)?)( .*|)$", line)
                if found and found[1] in PROGRAMS and " ─" not in line and "|" not in line:
                    # What the shell itself does with the line is the shell's matter.
                    arguments = re.sub(r"\$\(.*?\)", "VALUE", found[2]).split(" > ")[0].split(" >> ")[0]
                    yield page.name, f"{found[1]}{arguments}"


def mentioned() -> Iterator[tuple[str, str]]:
    """Page and line of every command with arguments that stands in a sentence; `…` is a value, or more of the same."""
    for page in PAGES:
        text = FENCED.sub("", page.read_text(encoding="utf-8"))
        for line in re.findall(r"`((?:ssd|ssd-coordinator|ssd-worker) [a-z][^`|]*)`", text):
            valued = re.sub(r"(--[\w-]+) …", r"\1 VALUE", line.replace("\n", " ")).replace(" …", "")
            yield page.name, valued.split(" > ")[0]


SHOWN = sorted({*shown(), *mentioned()})


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


def test_every_command_is_executed_or_says_why_not() -> None:
    """A new command: put its heading into a story of `docs_stories`, or itself and the reason into `NOT_EXECUTED`."""
    executed = told()
    forgotten = [each for each in shown_anywhere() if each not in executed and left_out(each) is None]
    assert not forgotten


def test_no_reason_and_no_story_is_left_of_what_is_gone() -> None:
    assert {left_out(each) for each in shown_anywhere()} == {None, *NOT_EXECUTED, *NOT_EXECUTED_PLACES}
    for story, places in STORIES.items():
        for place in places:
            assert list(blocks_at(place)), place
        if "/" in story:
            pages = {place.partition("#")[0] for place in places}
            assert all(page in (ROOT / story).read_text() for page in pages)


def test_a_block_that_is_not_recognised_would_be_noticed() -> None:
    assert Block("p", "H", "", "terraform apply\n").commands == ("terraform apply",)
    assert Block("p", "H", "sh", "# one\na \\\n  b  # remark\n\nc '# d'\n").commands == ("a    b", "c '# d'")
    assert Block("p", "H", "", "photographs/garden/…   images\n").commands == ()
    assert Block("p", "H", "toml", "a = 1\n").commands == ()
    assert without_comment("echo a#b # c") == "echo a#b"
    # What is no shell says what it is: otherwise it would count as commands.
    languages = {
        block.language for page in PAGES if page.name != "README.md" for block in blocks(relative(page))
    }
    assert "" not in languages


def relative(page: Path) -> str:
    """As `docs_pages` names pages."""
    return str(page.relative_to(ROOT))


def test_the_handbook_explains_every_alert() -> None:
    rules = (ROOT / "deploy" / "prometheus" / "rules" / "alerts.yml").read_text(encoding="utf-8")
    alerts = set(re.findall(r"alert: (\w+)", rules))
    handbook = (ROOT / "docs" / "handbook.md").read_text(encoding="utf-8")
    assert alerts
    assert set(re.findall(r"`(Ssd\w+)`", handbook)) == alerts


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in LINKED:
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
