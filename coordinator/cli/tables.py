"""What the `ssd-coordinator` verbs print, for people. Plain values in, text out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from ssd.daemon.cli.guard import colour
from ssd.daemon.doctor.disk import size
from ssd.daemon.printable import harmless, json_text, printable_but_styled

Json = Any
_PHASE_COLOURS = {"halted": "red", "paused": "yellow", "waiting": "yellow"}
_OUTCOME_COLOURS = {"abandoned": "yellow", "committed": "green"}


def status(value: Mapping[str, Json]) -> str:
    """The answer to `status`."""
    phase = click.style(value["phase"], fg=_PHASE_COLOURS.get(value["phase"], "green"))
    lines = [
        f"phase     {phase}" + (f": {value['waiting_for']}" if value["waiting_for"] else ""),
        f"run       {value['run_id']}  method {value['method']}, {value['mode']}",
        f"version   {value['version']} of {value['rounds']}  {value['model_digest'][:16]}",
    ]
    if value["round"]:
        cohort = ", ".join(f"{count} {state}" for state, count in value["cohort"].items())
        lines.append(f"round     {value['round']}, attempt {value['attempt']}: {cohort}")
    lines.append(
        f"clients   {value['connected_clients']} of {value['registered_clients']} connected, "
        f"on {len(value['workers'])} workers"
    )
    if value["statistics"]:
        lines.append(f"round was {_scalars(value['statistics'])}")
    if value.get("privacy"):
        lines.append(f"privacy   {value['privacy']}")
    if value["evaluation"]:
        lines.append(f"quality   of version {value['evaluated_version']}: {_scalars(value['evaluation'])}")
    if value["workers"]:
        rows = [
            (
                each["worker"],
                each["device"] or "-",
                each["clients"],
                "yes" if each["evaluates"] else "no",
                _seconds(each["last_seen_seconds"]),
            )
            for each in value["workers"]
        ]
        lines += ["", table(("worker", "device", "clients", "evaluates", "last seen"), rows)]
    return "\n".join(lines)


def rounds(records: Sequence[Mapping[str, Json]]) -> str:
    """The answer to `rounds`."""
    if not records:
        return "no round was opened yet"
    rows = [
        (
            each["round"],
            each["attempt"],
            click.style(each["outcome"], fg=_OUTCOME_COLOURS.get(each["outcome"])),
            f"{each['accepted']}/{each['cohort_size']}",
            _seconds(each["seconds"]),
            size(each["bytes_up"]),
            size(each["bytes_down"]),
            number(each["statistics"].get("loss")),
            each["reason"] or each["model_digest"][:16],
        )
        for each in records
    ]
    heads = ("round", "attempt", "outcome", "clients", "time", "up", "down", "loss", "digest or reason")
    return table(heads, rows)


def evaluations(records: Sequence[Mapping[str, Json]]) -> str:
    """The answer to `evaluations`."""
    if not records:
        return "nothing was measured yet"
    return "\n".join(f"version {each['version']}: {_scalars(each['values'])}" for each in records)


def clients(records: Sequence[Mapping[str, Json]]) -> str:
    """The answer to `clients`."""
    if not records:
        return "no client is registered yet"
    rows = [
        (
            each["client"],
            "-" if each["index"] is None else each["index"],
            click.style("revoked", fg="red") if each["revoked"] else each["worker"] or "-",
            each["last_committed_round"] or "-",
            each["rounds_included"],
            _dimensions(each["scaled_dimensions"]),
        )
        for each in records
    ]
    return table(("client", "index", "worker", "last round", "rounds", "scaled dimensions"), rows)


def show(value: Json, form: str, human: Callable[[Json], str]) -> None:
    """Print an answer: as JSON, or as what `human` makes of it when nothing in it can move the cursor."""
    text = json_text(value) if form == "json" else human(harmless(value))
    click.echo("\n".join(map(printable_but_styled, text.split("\n"))), color=colour())


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Left-aligned columns under their heads."""
    cells = [list(heads), *([printable_but_styled(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(click.unstyle(row[column])) for row in cells) for column in range(len(heads))]
    lines = [
        "  ".join(
            cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join([click.style(lines[0], bold=True), *lines[1:]])


def coloured(text: str, colour: str | None) -> str:
    """Text in a colour; None: as it is."""
    return text if colour is None else click.style(text, fg=colour)


def _scalars(values: Mapping[str, Json]) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in values.items())


def number(value: float | None) -> str:
    """Four digits, or a dash for what is not known."""
    return "-" if value is None else f"{value:.4g}"


def _seconds(value: Json) -> str:
    if value is None:
        return "-"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def _dimensions(indices: Sequence[int]) -> str:
    if not indices:
        return "-"
    shown = ",".join(map(str, indices[:6]))
    return f"{shown},… ({len(indices)})" if len(indices) > 6 else shown
