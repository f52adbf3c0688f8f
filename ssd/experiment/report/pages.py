"""A document as Markdown beside its pictures, and as one HTML file with everything in it."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path

from ssd.experiment.report.document import Block, Grid, Heading, Paragraph, Picture

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --quiet: #666; --paper: #fff; --line: #ddd; --band: #f6f6f6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --quiet: #a0a0a0; --paper: #16181b; --line: #3a3d42; --band: #1e2125; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 76rem;
  margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 .6rem; }
figure { margin: 1rem 0; } figcaption, caption { color: var(--quiet); font-size: .9em; text-align: left; }
img { max-width: 100%; background: #fff; border-radius: 4px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid var(--quiet); }
tbody tr:nth-child(even) { background: var(--band); }
"""
_EMPHASIS = re.compile(r"\*([^*\s][^*]*)\*")


def markdown(blocks: Sequence[Block], folder: Path) -> str:
    """Markdown; pictures are named relative to `folder`."""
    parts = []
    for block in blocks:
        match block:
            case Heading():
                parts.append(f"{'#' * block.level} {block.text}")
            case Paragraph():
                parts.append(block.text)
            case Grid():
                parts.append(_markdown_table(block))
            case Picture():
                parts.append(f"![{block.words}]({block.path.relative_to(folder).as_posix()})")
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Grid) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in cells) + " |"

    rule = "| --- |" + " ---: |" * (len(table.head) - 1)
    text = "\n".join([line(table.head), rule, *map(line, table.rows)])
    return f"{text}\n\n{table.caption}" if table.caption else text


def page(blocks: Sequence[Block]) -> str:
    """One HTML file: pictures inside, no script, nothing fetched from anywhere."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), "Report")
    body = "\n".join(_html(block) for block in blocks)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
        case Paragraph():
            words = _EMPHASIS.sub(r"<em>\1</em>", html.escape(block.text))
            return f"<p>{words}</p>"
        case Grid():
            return _html_table(block)
        case Picture():
            data = base64.b64encode(block.path.read_bytes()).decode()
            caption = html.escape(block.words)
            image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
            return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _html_table(table: Grid) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    caption = f"<caption>{html.escape(table.caption)}</caption>" if table.caption else ""
    rows = "\n".join(row(cells, "td") for cells in table.rows)
    head = row(table.head, "th")
    return f'<div class="wide"><table>{caption}<thead>{head}</thead>\n<tbody>{rows}</tbody></table></div>'
