"""The experiment file: frozen tables read strictly, every mistake reported at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from ssd.experiment.references import REFERENCES, TRAINED
from ssd.settings import SettingsError, read, unknown_key

Json = Any
Item = TypeVar("Item")
OURS: Mapping[str, frozenset[str]] = {
    "coordinator": frozenset(),
    "transport": frozenset(),
    "method": frozenset(),
    "run": frozenset({"mode", "rounds", "seed", "clients", "when_done", "threads"}),
    "round": frozenset({"cohort_size"}),
    "evaluation": frozenset({"every"}),
}
"""Tables of a coordinator's configuration and their keys (none: all of them) that the file says elsewhere: a method that
set its own seed would be compared as if it had the others'."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentTable:
    """`[experiment]`."""

    name: str
    """Names the default output folder."""
    seeds: tuple[int, ...]
    """Of everything: partition, initial weights, cohorts, batches, views, draws of labels."""
    base: str | None = None
    """Label of the method that all others are compared with; None: the first."""
    jobs: int = 1
    """Cells at once."""
    threads: int = 1
    """Of every client's training; changes bits."""
    workers: int = 1
    """Worker processes of a cell; changes nothing but time."""
    device: str = "auto"
    """What workers and measures compute on."""
    stall_seconds: float = 7200.0
    """A cell in which nothing happened for so long has failed."""
    references: tuple[str, ...] = REFERENCES
    """Rows beside every table that need no method (`ssd.experiment.references`); empty: none."""

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds must be different whole numbers from 0 on, got {list(self.seeds)}")
        if min(self.jobs, self.threads, self.workers) < 1:
            raise ValueError("jobs, threads and workers are at least 1")
        unknown = [each for each in self.references if each not in REFERENCES]
        if unknown:
            raise ValueError(unknown_key(unknown[0], list(REFERENCES), "references"))


@dataclass(frozen=True, kw_only=True, slots=True)
class DataTable:
    """`[data]`: a built-in data set, or none for methods without images."""

    kind: Literal["none", "digits", "cifar10", "cifar100", "mnist"]
    root: str | None = None
    """Where its files are; None: $SSD_DATA_ROOT."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingTable:
    """`[[settings]]`: who has which images, and how long training goes on."""

    name: str
    clients: int
    rounds: int
    cohort_size: int | None = None
    """Clients per round; None: all."""
    data: str | None = None
    """Another built-in set than `[data]`'s."""
    partition: Mapping[str, Json] = field(default_factory=dict)
    """Options of `ssd partition make`, such as alpha."""
    config: Mapping[str, Json] = field(default_factory=dict)
    """`[method.config]` of every method in this setting, over `[config]`, under the method's own."""
    coordinator: Mapping[str, Json] = field(default_factory=dict)
    """Tables of the coordinator's configuration, such as strategy and wire."""

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.clients < 1 or self.rounds < 1:
            raise ValueError("clients and rounds are at least 1")
        if self.cohort_size is not None and not 1 <= self.cohort_size <= self.clients:
            raise ValueError(f"cohort_size must be 1 to {self.clients} (clients), got {self.cohort_size}")


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodTable:
    """`[[methods]]`."""

    name: str
    """A built-in method, or how the method in `file` calls itself."""
    label: str = ""
    """Unique; names its folder. Empty: `name`."""
    title: str = ""
    """In reports. Empty: the label."""
    file: str | None = None
    """The Python file of a method that is not built in, relative to the experiment file."""
    config: Mapping[str, Json] = field(default_factory=dict)
    coordinator: Mapping[str, Json] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    """Only in these settings; empty: in all."""
    measured: bool = True
    """False: no encoder to export and measure; what the coordinator evaluated is all there is."""

    def __post_init__(self) -> None:
        _check_name(self.label or self.name)
        if (self.label or self.name) in REFERENCES:
            raise ValueError(
                f"{self.label or self.name!r} is the label of a reference row; give the method another"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationTable:
    """`[evaluation]`."""

    every: int = 0
    """Rounds between two evaluations by the coordinator's evaluator; 0: none."""
    best: int = 0
    """Also report the mean of the so many best evaluations of every accuracy, as some papers do. It flatters: the test
    images choose the rounds. 0: no."""
    measures: tuple[Mapping[str, Json], ...] = field(default_factory=lambda: ({},))
    """Calls of `ssd evaluate` on the final encoder: its options by name (`measures = ["linear_probe_paper"]`, ...), and
    `name`, which is put before the names of what it measures; `data`, to measure on another set than was trained on;
    `methods`, labels of those that are measured so (none: all); `head = true` for a classifier's accuracy."""

    def __post_init__(self) -> None:
        if self.every < 0 or self.best < 0:
            raise ValueError(f"every and best must not be negative, got {self.every} and {self.best}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimTable:
    """`[[claims]]`: written down before the runs; `ssd report` says whether it holds."""

    name: str
    text: str
    """The claim in words."""
    measure: str
    method: str
    against: str
    """Labels of the two methods; what is judged is method minus against, seed by seed."""
    setting: str | None = None
    """None: judged in every setting by itself."""
    direction: Literal["above", "below"] = "above"
    threshold: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """A whole file."""

    experiment: ExperimentTable
    data: DataTable
    settings: tuple[SettingTable, ...]
    methods: tuple[MethodTable, ...]
    config: Mapping[str, Json] = field(default_factory=dict)
    """`[method.config]` of every method."""
    evaluation: EvaluationTable = field(default_factory=EvaluationTable)
    claims: tuple[ClaimTable, ...] = ()

    def __post_init__(self) -> None:
        mistakes = [
            *_unique("settings", [each.name for each in self.settings]),
            *_unique("methods", [each.label for each in self.methods]),
            *_unique("claims", [each.name for each in self.claims]),
            *_unique("evaluation.measures", [str(each.get("name", "")) for each in self.evaluation.measures]),
        ]
        labels, names = [each.label for each in self.methods], [each.name for each in self.settings]
        wanted = [("experiment.base", self.base, labels)]
        rows = [*labels, *self.experiment.references]
        for claim in self.claims:
            where = f"claims {claim.name!r}"
            wanted += [(f"{where}.method", claim.method, rows), (f"{where}.against", claim.against, rows)]
            if claim.setting is not None:
                wanted.append((f"{where}.setting", claim.setting, names))
        for measure in self.evaluation.measures:
            where = f"evaluation.measures {measure.get('name', '')!r}.methods"
            wanted += [(where, str(label), labels) for label in measure.get("methods", ())]
        tables = [(f"settings {each.name!r}.coordinator", each.coordinator) for each in self.settings]
        tables += [(f"methods {each.label!r}.coordinator", each.coordinator) for each in self.methods]
        mistakes += [mistake for where, given in tables for mistake in _ours(where, given)]
        for method in self.methods:
            wanted += [(f"methods {method.label!r}.settings", name, names) for name in method.settings]
        mistakes += [unknown_key(value, known, where) for where, value, known in wanted if value not in known]
        if not mistakes:
            mistakes += [
                f"claims {claim.name!r}: no setting it is about has both {claim.method!r} and {claim.against!r}"
                for claim in self.claims
                if not any(self._judges(claim, setting) for setting in names)
            ]
        if mistakes:
            raise ValueError("; ".join(mistakes))

    def _judges(self, claim: ClaimTable, setting: str) -> bool:
        """Whether both methods of a claim have cells in a setting that it is about."""
        there = {each.label for each in self.methods if setting in (each.settings or (setting,))}
        there |= {*self.references(setting)}
        return claim.setting in (None, setting) and {claim.method, claim.against} <= there

    def references(self, setting: str) -> tuple[str, ...]:
        """Labels of the reference rows of a setting: none without images or without the base."""
        table = next(each for each in self.settings if each.name == setting)
        method = next((each for each in self.methods if each.label == self.base), None)
        if method is None or setting not in (method.settings or (setting,)):
            return ()
        if (table.data or self.data.kind) == "none":
            return ()
        measured = method.measured and any(
            method.label in (how.get("methods") or (method.label,)) for how in self.evaluation.measures
        )
        return tuple(
            each
            for each in REFERENCES
            if each in self.experiment.references and (measured or each in TRAINED)
        )

    @property
    def base(self) -> str:
        """Label of the method all others are compared with."""
        if self.experiment.base is not None:
            return self.experiment.base
        return self.methods[0].label if self.methods else ""


def load(path: Path) -> Experiment:
    """The experiment of a file.

    Raises:
        SettingsError: everything that is wrong with it.
        OSError: it cannot be read.
    """
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path}: {error}"]) from error
    return parse(value, path.parent)


def parse(value: Mapping[str, Json], folder: Path) -> Experiment:
    """The experiment of a JSON object; relative method files are sought in `folder`.

    Raises:
        SettingsError: everything that is wrong with it.
    """
    experiment = read(Experiment, _labelled(value), "experiment file")
    methods = tuple(
        method if method.file is None else replace(method, file=str((folder / method.file).absolute()))
        for method in experiment.methods
    )
    return replace(experiment, methods=methods)


def _labelled(value: Mapping[str, Json]) -> dict[str, Json]:
    """Labels and titles filled in, so that everything after may rely on them."""
    methods = value.get("methods")
    if not isinstance(methods, Sequence):
        return dict(value)
    filled = []
    for method in methods:
        if isinstance(method, Mapping) and isinstance(method.get("name"), str):
            label = method.get("label") or method["name"]
            filled.append({**method, "label": label, "title": method.get("title") or label})
        else:
            filled.append(method)
    return {**value, "methods": filled}


def _ours(where: str, tables: Mapping[str, Json]) -> list[str]:
    """The keys of coordinator tables that are not a setting's or a method's to say."""
    found = []
    for name, table in tables.items():
        if name in OURS:
            keys = sorted(OURS[name] & {*table}) if OURS[name] and isinstance(table, Mapping) else [""]
            found += [".".join(filter(None, (where, name, key))) for key in keys]
    return [f"{key} is decided by the experiment, not here" for key in found]


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} cannot name a folder: use 1 to 64 of A-Z a-z 0-9 . _ + -")


def _unique(where: str, names: Sequence[str]) -> list[str]:
    if not names and where in {"settings", "methods"}:
        return [f"there are no [[{where}]]"]
    twice = sorted({name for name in names if names.count(name) > 1})
    return [f"{where}: {name!r} is there twice" for name in twice]
