"""Where everything of an experiment is.

::

    OUT/experiment.json            the file as it was understood last
    OUT/claims.json                how many cells had finished when a claim was first seen
    OUT/partitions/SETTING-seed-N-OPTIONS.json
    OUT/cells/SETTING/METHOD/seed-N/
        config.json                what training depends on; written first, compared ever after
        code.json                  the versions of the code that trained it, more than one after an interruption
        trained.json               what the federation left behind; there as soon as training is over
        partition.json             of a reference row: the setting's images, dealt out again
        encoder.safetensors
        result.json                trained.json and the final measures: the cell is finished
        cell.log, coordinator.log, coordinator.toml, worker-1.log, ...
        coordinator/, workers/     state directories; removed when the cell is finished
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssd.experiment.grid import Cell, Place, differing
from ssd.files import write_atomically

Json = Any
LOCK = ".ssd-experiment"
RESULT, TRAINED, CONFIG, TASK = "result.json", "trained.json", "config.json", "task.json"
CODE = "code.json"
EXPERIMENT, CLAIMS = "experiment.json", "claims.json"


class CellRefused(ValueError):
    """A cell's folder holds something else; the message says what."""


def folder_of(out: Path, cell: Place) -> Path:
    """A cell's folder."""
    return out / "cells" / cell.name


def partition_of(out: Path, cell: Cell) -> Path:
    """A cell's partition file."""
    return out / "partitions" / cell.partition


def read_json(path: Path) -> dict[str, Json] | None:
    """The object in a file this program wrote; None if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CellRefused(f"{path} is damaged: {error}; remove the folder to run it again") from error
    if not isinstance(value, dict):
        raise CellRefused(f"{path} is damaged: no object; remove the folder to run it again")
    return value


def write_json(path: Path, value: Mapping[str, Json]) -> None:
    """Written so that a reader sees the old one or the new one."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, text.encode())


def refuse_changes(out: Path, cell: Cell) -> None:
    """Refuses a folder whose cell was started with another configuration.

    Raises:
        CellRefused: naming every key that differs, with both values.
    """
    folder = folder_of(out, cell)
    stored = read_json(folder / CONFIG)
    if stored is None:
        return
    changes = differing(stored, json.loads(json.dumps(cell.config)))
    if changes:
        listed = "\n".join(f"  {change}" for change in changes)
        raise CellRefused(
            f"{folder} was run with other settings:\n{listed}\n"
            "  put them back, name another --out, or remove that folder"
        )


def finished(out: Path, cell: Cell) -> bool:
    """Whether nothing is left to do, with the measures wanted now."""
    result = read_json(folder_of(out, cell) / RESULT)
    return result is not None and not missing_measures(result, cell.measures)


def missing_measures(result: Mapping[str, Json], wanted: Mapping[str, Json]) -> list[str]:
    """Names of the measures a result lacks, or has with other options."""
    stored = result["measures"]
    return [name for name, how in wanted.items() if name not in stored or stored[name]["how"] != dict(how)]
