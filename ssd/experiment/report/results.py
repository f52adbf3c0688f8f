"""The finished cells of an experiment, and every number of each by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ssd.digest import json_digest
from ssd.experiment.grid import Place, measures_by_place, places
from ssd.experiment.layout import CLAIMS, EXPERIMENT, RESULT, folder_of, read_json
from ssd.experiment.settings import ClaimTable, Experiment, parse
from ssd.settings import SettingsError, to_json

Json = Any
EVALUATED = "evaluated"
"""What the coordinator's evaluator measured on the last version stands under this name."""
BEST = "best"
"""The mean of the best evaluations of an accuracy, under this name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """An experiment and those of its cells that are finished."""

    experiment: Experiment
    cells: tuple[Place, ...]
    """All of them."""
    results: Mapping[str, Mapping[str, Json]]
    """`result.json` by the cell's name, without the numbers of `outdated` measures."""
    outdated: tuple[str, ...] = ()
    """`CELL: MEASURE` of numbers that were taken otherwise than the file says now."""
    folder: Path

    def of(self, setting: str, method: str, seed: int) -> Mapping[str, Json] | None:
        """One cell's result; None while it is missing."""
        return self.results.get(f"{setting}/{method}/seed-{seed}")

    def values(self, setting: str, method: str, measure: str) -> dict[int, float]:
        """A measure by seed, of the cells that have it."""
        found = {}
        for cell in self.cells:
            if (cell.setting, cell.method) == (setting, method) and cell.name in self.results:
                value = self.numbers(cell.name).get(measure)
                if value is not None:
                    found[cell.seed] = value
        return found

    def numbers(self, cell: str) -> dict[str, float]:
        """Every final number of a finished cell."""
        return numbers(self.results[cell], self.experiment.evaluation.best)

    def methods(self, setting: str) -> list[str]:
        """Labels of the methods with cells in a setting, in the file's order."""
        there = {cell.method for cell in self.cells if cell.setting == setting}
        return [method.label for method in self.experiment.methods if method.label in there]

    def columns(self, setting: str) -> list[str]:
        """The methods, then the reference rows."""
        return [*self.methods(setting), *self.experiment.references(setting)]

    @property
    def base(self) -> str:
        """Label of the method all others are compared with."""
        return self.experiment.base

    def seeds(self, setting: str, method: str) -> list[int]:
        """Seeds that are planned."""
        return [cell.seed for cell in self.cells if (cell.setting, cell.method) == (setting, method)]

    def measures(self, setting: str) -> list[str]:
        """Names of everything measured in a setting, in the order of the results."""
        names: dict[str, None] = {}
        for cell in self.cells:
            if cell.setting == setting and cell.name in self.results:
                names |= dict.fromkeys(self.numbers(cell.name))
        return list(names)

    @property
    def missing(self) -> Sequence[str]:
        """Names of the cells that are not finished."""
        return [cell.name for cell in self.cells if cell.name not in self.results]


def numbers(result: Mapping[str, Json], best: int = 0) -> dict[str, float]:
    """Every final number of a result: `NAME/KEY` of the measure NAME, `KEY` of the one without a name,
    `evaluated/KEY` of the last evaluation during the run, and `best/KEY`, the mean of the `best` highest values an
    accuracy had during the run.
    """
    found: dict[str, float] = {}
    for name, measured in result["measures"].items():
        found |= {f"{name}/{key}" if name else key: value for key, value in measured["values"].items()}
    last = result["evaluations"].get(str(result["model_version"]), {})
    found |= {f"{EVALUATED}/{key}": last[key] for key in sorted(last) if last[key] is not None}
    if best:
        found |= {f"{BEST}/{key}": value for key, value in _best(result["evaluations"], best).items()}
    return found


def _best(evaluations: Mapping[str, Mapping[str, float | None]], count: int) -> dict[str, float]:
    """The mean of the `count` highest values of every accuracy; of all where there are fewer."""
    series: dict[str, list[float]] = {}
    for values in evaluations.values():
        for key, value in values.items():
            if key.endswith("accuracy") and value is not None:
                series.setdefault(key, []).append(value)
    return {key: fmean(sorted(values)[-count:]) for key, values in sorted(series.items())}


def read(folder: Path) -> Results:
    """The results in an experiment's folder.

    Raises:
        SettingsError: no experiment was run there.
        CellRefused: a result is damaged.
    """
    stored = read_json(folder / EXPERIMENT)
    if stored is None:
        raise SettingsError([f"{folder} holds no experiment: there is no {EXPERIMENT} in it"])
    experiment = parse(stored, folder)
    made = tuple(places(experiment))
    wanted = measures_by_place(experiment)
    results: dict[str, Mapping[str, Json]] = {}
    outdated = []
    for cell in made:
        result = read_json(folder_of(folder, cell) / RESULT)
        if result is not None:
            stored = result["measures"]
            valid = {
                name: each for name, each in stored.items() if each["how"] == wanted[cell.name].get(name)
            }
            outdated += [
                f"{cell.name}: {name or 'the measure without a name'}" for name in stored if name not in valid
            ]
            results[cell.name] = {**result, "measures": valid}
    return Results(
        experiment=experiment, cells=made, results=results, outdated=tuple(outdated), folder=folder
    )


def finished_before(results: Results, claim: ClaimTable) -> int | None:
    """How many cells had finished when a claim was first seen as it is now; None if the runner never saw it."""
    noted = (read_json(results.folder / CLAIMS) or {}).get(json_digest(to_json(claim)))
    return None if noted is None else int(noted["finished_cells"])
