"""Records as rows: a list of dictionaries that a notebook shows as a table."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ssd.daemon.printable import printable

Json = Any
_SHOWN = 200
"""Rows that a notebook shows at most; the list has them all."""


class Rows(list[dict[str, Json]]):
    """Records in order; `pandas.DataFrame(rows)` takes them as they are."""

    def _repr_html_(self) -> str:
        columns = list(dict.fromkeys(name for row in self for name in row))
        if not columns:
            return "<p>no rows</p>"
        head = "".join(f"<th>{_text(name)}</th>" for name in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{_text(row.get(name))}</td>" for name in columns) + "</tr>"
            for row in self[:_SHOWN]
        )
        more = f"<p>{len(self) - _SHOWN} more rows</p>" if len(self) > _SHOWN else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def facts_html(title: str, facts: Mapping[str, Json]) -> str:
    """A heading and a two-column table of facts, for a notebook."""
    rows = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in facts.items())
    return f"<strong>{_text(title)}</strong><table><tbody>{rows}</tbody></table>"


def _text(value: Json) -> str:
    """A value as it may stand in a page: names of clients and files are strangers' words."""
    if value is None:
        return ""
    return escape(printable(f"{value:.4g}" if isinstance(value, float) else str(value)))
