"""How our pictures look: one palette, quiet axes, and PNG files that are the same for the same numbers.

Figures are built on the Agg canvas directly; pyplot, with its global state and its display, is never imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ssd.data.images.walk import printable

RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
"""Okabe and Ito's palette, in an order that stays apart for colour-blind readers; the first is ours."""

CLASS_COLOURS = (
    "#4C78A8", "#F58518", "#54A24B", "#E45756", "#72B7B2", "#B279A2", "#EECA3B", "#9D755D", "#FF9DA6", "#79706E",
)  # fmt: skip
INK = "#222222"
QUIET = "#8A8A8A"
DPI = 150

# Any: the library types its keys since version 3.11 only.
_SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


@contextmanager
def styled() -> Iterator[None]:
    """Our fonts and inks while a figure is built; the process's own settings are left alone."""
    with mpl.rc_context(_SETTINGS):
        yield


def new_figure(
    width: float, height: float, layout: Literal["constrained", "compressed"] = "constrained"
) -> Figure:
    """An empty figure (inches) on a canvas of its own; `compressed` is for panels of a fixed shape."""
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def quiet_axes(axes: Axes) -> None:
    """Only the two axes that carry numbers, and faint horizontal lines to read them by."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)


def plain(words: str) -> str:
    """Any text (a folder's name, say) as the plotting library shows it, not as mathematics or as a hidden label."""
    text = printable(words).replace("$", r"\$")
    return f"\u200a{text}" if text.startswith("_") else text


def save_png(figure: Figure, path: Path) -> None:
    """Write the figure; nothing in the file depends on the day or on the version of the plotting library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, format="png", metadata={"Software": None})
