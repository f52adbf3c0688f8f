"""A whole report into a folder: report.md, report.html, results.csv, results.json and the pictures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ssd.data.images.errors import DataError
from ssd.experiment.report import pictures
from ssd.experiment.report.claims import verdicts
from ssd.experiment.report.document import Paragraph, Picture
from ssd.experiment.report.pages import markdown, page
from ssd.experiment.report.results import Results
from ssd.experiment.report.sections import document
from ssd.files import write_atomically
from ssd.settings import to_json

Json = Any


def write_report(
    results: Results, out: Path, root: Path | None, *, with_maps: bool, say: Callable[[str], None]
) -> list[Path]:
    """Write everything; the files, pages first.

    Args:
        results: the finished cells.
        out: the folder.
        root: where the data sets' files are, for the maps.
        with_maps: draw representation maps; they need the images.
        say: receives a line about what takes a while, and about what could not be drawn.
    """
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    drawn: dict[str, list[Picture | Paragraph]] = {}
    for setting in results.experiment.settings:
        drawn[setting.name] = _pictures(results, setting.name, out, root, with_maps=with_maps, say=say)
    blocks = document(results, drawn)
    files = {
        "report.html": page(blocks),
        "report.md": markdown(blocks, out),
        "results.csv": table(results),
        "results.json": json.dumps(everything(results), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
    }
    for name, text in files.items():
        write_atomically(out / name, text.encode())
    return [out / name for name in files]


def _pictures(
    results: Results,
    setting: str,
    out: Path,
    root: Path | None,
    *,
    with_maps: bool,
    say: Callable[[str], None],
) -> list[Picture | Paragraph]:
    found: list[Picture | Paragraph] = []
    say(f"{setting}: drawing curves")
    path = out / "pictures" / f"{setting}-curves.png"
    if pictures.curves(results, setting, path):
        found.append(Picture(path, f"{setting}: training and evaluations, means over seeds"))
    if not with_maps:
        return found
    say(f"{setting}: drawing the map of representations")
    path = out / "pictures" / f"{setting}-map.png"
    try:
        seed = pictures.maps(results, setting, path, root)
    except DataError as error:
        say(f"{setting}: no map: {error}")
        return [*found, Paragraph("There is no map of representations: the images were not at hand.")]
    if seed is not None:
        found.append(Picture(path, f"{setting}: test images as each encoder represents them, seed {seed}"))
    return found


def table(results: Results) -> str:
    """Every number: setting, method, seed, measure, value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["setting", "method", "seed", "measure", "value"])
    for place in results.cells:
        found = results.numbers(place.name) if place.name in results.results else {}
        for measure, value in found.items():
            writer.writerow([place.setting, place.method, place.seed, measure, repr(float(value))])
    return text.getvalue()


def everything(results: Results) -> dict[str, Json]:
    """The file, the verdicts and every finished cell whole."""
    return {
        "format": "ssd-experiment-report",
        "version": 1,
        "experiment": to_json(results.experiment),
        "verdicts": [
            {
                **asdict(each),
                "claim": each.claim.name,
                "difference": each.difference and asdict(each.difference),
            }
            for each in verdicts(results)
        ],
        "missing": list(results.missing),
        "cells": dict(results.results),
    }
