"""The cells of an experiment, and for each everything that decides its numbers.

Seeds are paired: within one setting and seed all methods train on the same partition from a run of the same seed,
hence from the same initial weights, and are measured with the same draws of labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd.data.images.errors import DataError
from ssd.digest import digest_bytes, json_digest
from ssd.experiment.measures import Measure, parts_for, read_measures
from ssd.experiment.options import PARTITION_OWN, accepted, arguments, command
from ssd.experiment.references import REFERENCES, reference_config
from ssd.experiment.settings import Experiment, MethodTable, SettingTable
from ssd.settings import SettingsError, merge

Json = Any
FORMAT = "ssd-experiment-cell"
VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where in the grid a cell is."""

    setting: str
    method: str
    """Its label."""
    seed: int

    @property
    def name(self) -> str:
        """Unique in the experiment, and the cell's folder."""
        return f"{self.setting}/{self.method}/seed-{self.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell(Place):
    """One method in one setting with one seed."""

    config: Mapping[str, Json]
    """What training depends on; a directory that holds a cell of another `config` is not touched."""
    file: Path | None
    """Of a method that is not built in."""
    measures: Mapping[str, Mapping[str, Json]]
    """Name -> one call of `ssd evaluate`, as `Measure.to_json` gives it."""
    exports: tuple[str, ...]
    """Parts of the final model to take out: the encoder, and what the measures need besides."""

    @property
    def partition(self) -> str:
        """Its partition file's name: cells that share a setting and a seed share it, and no other options do."""
        made_from = {key: self.config[key] for key in ("data", "partition", "clients", "seed")}
        made_from["clients"] = self.config.get("owners", made_from["clients"])
        return f"{self.setting}-seed-{self.seed}-{json_digest(made_from)[:8]}.json"


def places(experiment: Experiment) -> list[Place]:
    """The grid: seed by seed, so that early results already compare all methods; reference rows after the methods."""
    return [
        Place(setting=setting.name, method=label, seed=seed)
        for setting in experiment.settings
        for seed in experiment.experiment.seeds
        for label in (
            *(
                each.label
                for each in experiment.methods
                if setting.name in (each.settings or (setting.name,))
            ),
            *experiment.references(setting.name),
        )
    ]


def cells(experiment: Experiment, only: str = "") -> list[Cell]:
    """Every cell of the grid.

    Args:
        experiment: the file.
        only: leave out cells whose name does not contain it.

    Raises:
        SettingsError: options of a setting or a measure that the commands do not take, or an unreadable method
            file.
    """
    mistakes: list[str] = []
    settings = {each.name: each for each in experiment.settings}
    methods = {each.label: each for each in experiment.methods}
    partitions = {name: _partition(each, mistakes) for name, each in settings.items()}
    measures = {
        name: read_measures(experiment.evaluation.measures, kind_of(experiment, each), mistakes)
        for name, each in settings.items()
    }
    sources = {label: _source(each, mistakes) for label, each in methods.items()}
    if mistakes:
        raise SettingsError(list(dict.fromkeys(mistakes)))
    made = []
    for place in places(experiment):
        setting, method = settings[place.setting], methods[_method_of(experiment, place)]
        wanted = _wanted(measures[setting.name], method)
        config: dict[str, Json] = {
            "format": FORMAT,
            "version": VERSION,
            "data": kind_of(experiment, setting),
            "partition": partitions[setting.name],
            "clients": setting.clients,
            "cohort_size": setting.cohort_size or setting.clients,
            "rounds": setting.rounds,
            "seed": place.seed,
            "threads": experiment.experiment.threads,
            "evaluate_every": experiment.evaluation.every,
            "method": {"name": method.name, "source": sources[method.label]},
            "config": merge(merge(experiment.config, setting.config), method.config),
            "coordinator": merge(setting.coordinator, method.coordinator),
        }
        if place.method in REFERENCES:
            config = reference_config(place.method, config)
        made.append(
            Cell(
                setting=setting.name,
                method=place.method,
                seed=place.seed,
                config=config,
                file=None if method.file is None else Path(method.file),
                measures=wanted,
                exports=parts_for(wanted.values(), config["config"]) if method.measured else (),
            )
        )
    return [cell for cell in made if only in cell.name]


def measures_by_place(experiment: Experiment) -> dict[str, dict[str, dict[str, Json]]]:
    """How every cell is to be measured: the cell's name -> the measure's name -> as `Cell.measures`.

    Raises:
        SettingsError: options of a measure that the command does not take.
    """
    mistakes: list[str] = []
    methods = {each.label: each for each in experiment.methods}
    measures = {
        each.name: read_measures(experiment.evaluation.measures, kind_of(experiment, each), mistakes)
        for each in experiment.settings
    }
    if mistakes:
        raise SettingsError(list(dict.fromkeys(mistakes)))
    return {
        place.name: _wanted(measures[place.setting], methods[_method_of(experiment, place)])
        for place in places(experiment)
    }


def _method_of(experiment: Experiment, place: Place) -> str:
    """Label of the method whose settings a cell has: a reference row has the base's."""
    return experiment.base if place.method in REFERENCES else place.method


def _wanted(measures: Mapping[str, Measure], method: MethodTable) -> dict[str, dict[str, Json]]:
    return {
        name: how.to_json()
        for name, how in measures.items()
        if method.measured and method.label in (how.methods or (method.label,))
    }


def kind_of(experiment: Experiment, setting: SettingTable) -> str:
    """The data set of a setting."""
    return setting.data or experiment.data.kind


def differing(stored: Mapping[str, Json], wanted: Mapping[str, Json], where: str = "") -> list[str]:
    """The dotted keys in which two configurations differ, with both values."""
    found = []
    for key in sorted({*stored, *wanted}):
        here = f"{where}.{key}" if where else key
        old, new = stored.get(key, _MISSING), wanted.get(key, _MISSING)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differing(old, new, here)
        elif old != new:
            found.append(f"{here}: {_shown(old)} there, {_shown(new)} now")
    return found


_MISSING = object()


def _shown(value: object) -> str:
    return "nothing" if value is _MISSING else repr(value)


def _partition(setting: SettingTable, mistakes: list[str]) -> list[str]:
    known = accepted(command("partition", "make"), PARTITION_OWN)
    given, wrong = arguments(setting.partition, known, f"settings {setting.name!r}.partition")
    mistakes += wrong
    return given


def _source(method: MethodTable, mistakes: list[str]) -> str:
    """Digest of the method's file; empty for a built-in one."""
    if method.file is None:
        return ""
    try:
        return digest_bytes(Path(method.file).read_bytes())
    except OSError as error:
        mistakes.append(f"methods {method.label!r}.file: {method.file}: {error.strerror}")
        return ""


def needs_root(made: Sequence[Cell]) -> list[str]:
    """The data sets of these cells whose files must be somewhere."""
    kinds = {str(cell.config["data"]) for cell in made}
    kinds |= {str(how["data"]) for cell in made for how in cell.measures.values()}
    return sorted(kinds - {"none", "digits"})


def check_methods(made: Sequence[Cell]) -> None:
    """Builds every method once, as the coordinator will.

    Raises:
        SettingsError: a method does not exist or does not accept its configuration.
    """
    from ssd.method.registry import MethodError, load

    mistakes: dict[str, None] = {}
    for cell in made:
        name = cell.config["method"]["name"] if cell.file is None else str(cell.file)
        try:
            load(name, cell.config["config"])
        except (MethodError, ValueError, TypeError, DataError) as error:
            mistakes[f"{cell.setting}/{cell.method}: {error}"] = None
    if mistakes:
        raise SettingsError(list(mistakes))
