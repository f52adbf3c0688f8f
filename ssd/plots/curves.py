"""Curves over rounds: loss terms, uniformity, accuracy and effective rank, for several runs in one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ssd.plots.style import INK, QUIET, RUN_COLOURS, new_figure, plain, quiet_axes, save_png, styled

LINES: tuple[Any, ...] = (
    "-",
    (0, (5, 2)),
    (0, (1, 1.5)),
    (0, (6, 2, 1, 2)),
)
MARKED_POINTS = 25
"""Lines of at most this many points show them."""

RoundValues: TypeAlias = Mapping[str, float]
"""One round: `round` and any measures by name. A line goes on over rounds without its measure (such as those that
were not evaluated) and has a gap where the value is not finite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One small plot."""

    title: str
    series: Mapping[str, str]
    """Measure to its words in the legend; one entry needs no words."""
    unit: str = ""
    percent: bool = False


LOSSES = Panel(
    title="Loss terms",
    series={
        "loss": "total",
        "loss_alignment": "alignment",
        "loss_uniformity": "uniformity",
    },
)
SEPARATION = Panel(
    title="Separation terms",
    series={"loss_dsr": "dimension-scaled", "loss_distillation": "projector distillation"},
)
UNIFORMITY = Panel(
    title="Uniformity (higher is better)",
    series={"uniformity_inter": "between clients", "uniformity_intra": "within a client"},
    unit="−log E exp(−2‖u−v‖²)",
)
ACCURACY = Panel(
    title="Accuracy on the probe",
    series={
        "linear_probe_all": "linear, all labels",
        "linear_probe_2_per_class": "linear, 2 per class",
        "knn_all": "kNN",
    },
    unit="top-1",
    percent=True,
)
CLASSIFIER = Panel(
    title="Accuracy of the classifier",
    series={"accuracy": "test images", "personalised_accuracy": "clients' own test images"},
    unit="top-1",
    percent=True,
)
RANK = Panel(title="Effective rank", series={"effective_rank": "effective rank"})
DEFAULT_PANELS = (LOSSES, SEPARATION, UNIFORMITY, ACCURACY, CLASSIFIER, RANK)


def round_values(
    number: int,
    statistics: Mapping[str, float] | None = None,
    evaluation: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """One round of a run from what a federation reports about it.

    Args:
        number: the round.
        statistics: the cohort's summed training statistics: each `X_sum` is divided by `batches` and becomes
            `loss` or `loss_X`.
        evaluation: measures of the model after the round (`ssd.evaluation`), taken as they are.
    """
    values = {"round": float(number), **(evaluation or {})}
    batches = (statistics or {}).get("batches", 0.0)
    for name, total in (statistics or {}).items():
        if name.endswith("_sum") and batches > 0:
            term = name.removesuffix("_sum")
            values["loss" if term == "loss" else f"loss_{term}"] = total / batches
    return values


TERMS = frozenset(name.removeprefix("loss_") for panel in (LOSSES, SEPARATION) for name in panel.series)
"""Statistics of a round that are terms of the loss."""


def run_rows(
    rounds: Sequence[Mapping[str, Any]], evaluations: Mapping[int, Mapping[str, float]]
) -> list[dict[str, float]]:
    """A row per version of a run; version 0, before any round, has an evaluation only.

    Args:
        rounds: one record per committed round, as `ssd-coordinator rounds` gives them; its statistics are means.
        evaluations: measures by version.
    """
    statistics = {int(record["round"]): record["statistics"] for record in rounds}
    rows = []
    for version in sorted({*statistics, *evaluations}):
        row = round_values(version, None, evaluations.get(version))
        for term, value in statistics.get(version, {}).items():
            if term in TERMS:
                row["loss" if term == "loss" else f"loss_{term}"] = float(value)
        rows.append(row)
    return rows


def save_curves(
    path: Path,
    runs: Mapping[str, Sequence[RoundValues]],
    *,
    panels: Sequence[Panel] = DEFAULT_PANELS,
    title: str = "",
) -> None:
    """Draw one plot per panel: a colour per run, a line style per measure.

    Args:
        path: the PNG file; its folder is made.
        runs: the rounds of each run, in any order; what differs in length or measures is drawn as far as it goes.
        panels: which measures go together. A panel nothing was measured for is left out.
        title: above everything.

    Raises:
        ValueError: no panel has anything to draw, or a round has no `round`.
    """
    used = [
        panel
        for panel in panels
        if any(_points(rows, name) for rows in runs.values() for name in panel.series)
    ]
    if not used:
        wanted = sorted(name for panel in panels for name in panel.series)
        raise ValueError(f"nothing to draw: no run has any of {', '.join(wanted)}")
    columns = len(used) if len(used) < 4 else 2 if len(used) == 4 else 3
    rows_of_panels = math.ceil(len(used) / columns)
    with styled():
        figure = new_figure(4.7 * columns, 3.2 * rows_of_panels + 0.6)
        grid = figure.subplots(rows_of_panels, columns, squeeze=False)
        for axes, panel in zip(grid.flat, used, strict=False):
            _draw(axes, panel, runs)
        every = list(grid.flat)
        for position, axes in enumerate(every):
            axes.set_visible(position < len(used))
            # The lowest one drawn in its column.
            axes.set_xlabel("round" if position + columns >= len(used) else "")
        handles = [
            Line2D([], [], color=_colour(number), linewidth=2.2, label=plain(name))
            for number, name in enumerate(runs)
        ]
        figure.legend(handles=handles, loc="outside upper right", ncols=min(5, len(handles)), frameon=False)
        if title:
            figure.suptitle(plain(title), x=0.005, ha="left", fontsize=12.5, fontweight="bold", color=INK)
        save_png(figure, path)


def _draw(axes: Axes, panel: Panel, runs: Mapping[str, Sequence[RoundValues]]) -> None:
    quiet_axes(axes)
    axes.set_title(panel.title)
    axes.set_ylabel(panel.unit)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    if panel.percent:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    measured = [name for name in panel.series if any(_points(rows, name) for rows in runs.values())]
    for number, rows in enumerate(runs.values()):
        for style, name in enumerate(measured):
            points = _points(rows, name)
            if not points:
                continue
            xs, ys = zip(*points, strict=True)
            axes.plot(
                xs, ys, color=_colour(number), linestyle=LINES[style % len(LINES)],
                linewidth=1.9, marker="o" if len(points) <= MARKED_POINTS else None, markersize=3.5,
                solid_capstyle="round",
            )  # fmt: skip
    if len(measured) > 1:
        keys = [
            Line2D(
                [],
                [],
                color=QUIET,
                linewidth=1.7,
                linestyle=LINES[style % len(LINES)],
                label=panel.series[name],
            )
            for style, name in enumerate(measured)
        ]
        axes.legend(handles=keys, loc="best", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8.5)


def _points(rows: Sequence[RoundValues], name: str) -> list[tuple[float, float]]:
    """(round, value) of the rounds that have the measure, in order, NaN for one that is not finite; or []."""
    points = []
    for row in rows:
        if "round" not in row:
            raise ValueError(f"a round without its number: {dict(row)}")
        if name in row:
            points.append((row["round"], row[name] if math.isfinite(row[name]) else math.nan))
    points.sort(key=lambda point: point[0])
    return points if any(math.isfinite(value) for _, value in points) else []


def _colour(number: int) -> str:
    return RUN_COLOURS[number % len(RUN_COLOURS)]
