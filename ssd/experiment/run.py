"""Running the cells of an experiment, several at once, each as a process of its own."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from ssd.digest import json_digest
from ssd.experiment.cell import CellTask
from ssd.experiment.grid import Cell, cells, places
from ssd.experiment.layout import (
    CLAIMS,
    EXPERIMENT,
    LOCK,
    RESULT,
    TASK,
    CellRefused,
    finished,
    folder_of,
    partition_of,
    read_json,
    refuse_changes,
    write_json,
)
from ssd.experiment.live import Display
from ssd.experiment.settings import Experiment, ExperimentTable
from ssd.federation.children import Child, Children, interruptible
from ssd.federation.telemetry import LogFollower
from ssd.settings import to_json

Json = Any
POLL_SECONDS = 0.5
STOP_SECONDS = 25.0
"""A cell's process has daemons of its own to stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A cell that did not finish."""

    cell: str
    error: str
    words: Sequence[str] = ()
    log: str = ""


@dataclass(slots=True)
class _Running:
    cell: Cell
    child: Child
    follower: LogFollower
    last: Mapping[str, Json] = field(default_factory=dict)


def run_experiment(
    experiment: Experiment,
    made: Sequence[Cell],
    out: Path,
    console: Console,
    *,
    root: str | None,
    jobs: int,
    keep: bool,
) -> list[Failure]:
    """Run every cell that is not finished; those that failed.

    Args:
        experiment: the file.
        made: its cells, or some of them.
        out: the experiment's folder.
        console: where progress goes.
        root: where the data set's files are.
        jobs: cells at once.
        keep: keep the daemons' state directories.

    Raises:
        CellRefused: the folder is in use or somebody else's, or holds cells of other settings, `made` or not: a
            report compares all of them.
        KeyboardInterrupt: interrupted; everything has been stopped.
        OSError: the folder cannot be written.
    """
    with claimed(out), interruptible():
        refusals = []
        for cell in cells(experiment):
            try:
                refuse_changes(out, cell)
            except CellRefused as refused:
                refusals.append(str(refused))
        if refusals:
            raise CellRefused("\n".join(refusals))
        write_json(out / EXPERIMENT, to_json(experiment))
        note_claims(out, experiment)
        todo = [cell for cell in made if not finished(out, cell)]
        with Display(console, len(made)) as display, Children(STOP_SECONDS) as children:
            if len(todo) < len(made):
                display.skipped(len(made) - len(todo))
                display.say(f"{len(made) - len(todo)} of {len(made)} cells were finished before")
            pool = _Pool(experiment.experiment, out, children, display, root=root, keep=keep)
            return pool.run(todo, jobs)


def note_claims(out: Path, experiment: Experiment) -> None:
    """Keep with every claim how many cells had finished when its present wording was first seen here."""
    known = read_json(out / CLAIMS) or {}
    done = sum((folder_of(out, place) / RESULT).exists() for place in places(experiment))
    for claim in experiment.claims:
        known.setdefault(json_digest(to_json(claim)), {"name": claim.name, "finished_cells": done})
    write_json(out / CLAIMS, known)


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[None]:
    """The folder is this runner's within.

    Raises:
        CellRefused: it holds files no experiment made, or another runner is at work there.
    """
    if out.exists() and not out.is_dir():
        raise CellRefused(f"{out} is a file; name a folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    marker = out / LOCK
    if not marker.exists() and any(out.iterdir()):
        raise CellRefused(
            f"{out} holds files that are no experiment's; name an empty or new folder with --out"
        )
    with marker.open("a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CellRefused(
                f"another `ssd experiment` is at work in {out}; wait for it, or name another --out"
            ) from None
        yield


class _Pool:
    """At most so many cells at once; one that fails does not stop the others."""

    def __init__(
        self,
        table: ExperimentTable,
        out: Path,
        children: Children,
        display: Display,
        *,
        root: str | None,
        keep: bool,
    ) -> None:
        self._table = table
        self._out = out
        self._children = children
        self._display = display
        self._root = root
        self._keep = keep
        self._running: list[_Running] = []
        self._failures: list[Failure] = []

    def run(self, todo: Sequence[Cell], jobs: int) -> list[Failure]:
        waiting = list(todo)
        while waiting or self._running:
            while waiting and len(self._running) < jobs:
                self._running.append(self._start(waiting.pop(0)))
            time.sleep(POLL_SECONDS)
            for running in list(self._running):
                # Asked before its log is read, so that a last word is never missed.
                code = running.child.exit_code
                for event in running.follower.read():
                    running.last = event
                    self._display.cell(running.cell.name, event)
                if code is not None:
                    self._running.remove(running)
                    self._ended(running, code)
        return self._failures

    def _start(self, cell: Cell) -> _Running:
        folder = folder_of(self._out, cell).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        task = CellTask(
            name=cell.name,
            folder=str(folder),
            partition=str(partition_of(self._out, cell).absolute()),
            config=cell.config,
            measures=cell.measures,
            exports=cell.exports,
            file=None if cell.file is None else str(cell.file),
            root=self._root,
            device=self._table.device,
            workers=self._table.workers,
            keep=self._keep,
            stall_seconds=self._table.stall_seconds,
        )
        write_json(folder / TASK, asdict(task))
        log = folder / "cell.log"
        follower = LogFollower(log, from_now=True)
        child = self._children.start(cell.name, ["-m", "ssd.experiment.cell", str(folder / TASK)], log)
        return _Running(cell, child, follower)

    def _ended(self, running: _Running, code: int) -> None:
        self._display.ended(running.cell.name, failed=code != 0)
        if code == 0:
            return
        last = running.last if running.last.get("phase") == "failed" else {}
        self._failures.append(
            Failure(
                cell=running.cell.name,
                error=str(last.get("error", f"its process ended with exit code {code}")),
                words=last.get("words", running.child.tail(6)),
                log=str(last.get("log", running.child.log)),
            )
        )
