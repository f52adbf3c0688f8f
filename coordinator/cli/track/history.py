"""Where a run's rounds and measures are read from: a coordinator that answers, or the state directory it left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from coordinator.errors import OperatorFault
from coordinator.inspection.rounds import RoundView, round_view
from coordinator.store.journal.reading import History, read_history

if TYPE_CHECKING:
    from coordinator.rpc.operator.client import OperatorClient

Json = Any
FIRST_ASK = 100
"""Round attempts asked for at first; four times as many until all are there."""


class NoRun(OperatorFault):
    """There is nothing to read."""

    code = "no_run"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunProgress:
    """Which run it is, and how far."""

    method: str
    run_id: str
    finished: bool
    """All of its rounds are committed."""
    rounds: int = 0
    """How many it is to have; 0: not known."""


class RunHistory(Protocol):
    """The current run, as far as it has come; a later look may find another one."""

    def standing(self) -> RunProgress:
        """Now."""
        ...

    def rounds(self, newer_than: int) -> list[Mapping[str, Json]]:
        """Attempts at least at every round above `newer_than`, as `ssd-coordinator rounds --format json` has them."""
        ...

    def evaluations(self) -> Sequence[Mapping[str, Json]]:
        """As `ssd-coordinator evaluations --format json` has them."""
        ...


class LiveHistory:
    """Asks a coordinator; every method raises what `OperatorClient` raises."""

    def __init__(self, client: OperatorClient) -> None:
        self._client = client

    def standing(self) -> RunProgress:
        """Of its status."""
        status = self._client.status()
        return RunProgress(
            method=status["method"],
            run_id=status["run_id"],
            finished=status["phase"] == "finished",
            rounds=status["rounds"],
        )

    def rounds(self, newer_than: int) -> list[Mapping[str, Json]]:
        """The newest, and more of them until `newer_than` is reached: the coordinator sends them newest first."""
        asked = FIRST_ASK
        while True:
            found = self._client.rounds(asked, counts_only=True)
            if len(found) < asked or found[-1]["round"] <= newer_than:
                return list(found)
            asked *= 4

    def evaluations(self) -> Sequence[Mapping[str, Json]]:
        """All."""
        return self._client.evaluations()


class StoredHistory:
    """Reads a state directory, beside a running coordinator or without one.

    Raises (all methods):
        NoRun: there is none.
        StorageFailed: it cannot be read.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir

    def standing(self) -> RunProgress:
        """Of the journal. How many rounds there are to be is not in it: the record of the run has the first wish."""
        found = self._history
        return RunProgress(
            method=found.run.config["method"]["name"], run_id=found.run.run_id, finished=found.finished
        )

    def rounds(self, newer_than: int) -> list[Mapping[str, Json]]:
        """All of the newer ones."""
        history = self._history
        versions = {version.number: version for version in history.versions}
        return [
            _plain(round_view(each, versions.get(each.round)))
            for each in history.attempts
            if each.round > newer_than
        ]

    def evaluations(self) -> Sequence[Mapping[str, Json]]:
        """All."""
        return [{"version": version, "values": values} for version, values in self._history.evaluations]

    @property
    def _history(self) -> History:
        found = read_history(self._state_dir)
        if found is None:
            raise NoRun(
                f"there is no run in {self._state_dir}: name the right folder with --state-dir or --config"
            )
        return found


def _plain(view: RoundView) -> Mapping[str, Json]:
    return {
        "round": view.round,
        "attempt": view.attempt,
        "outcome": view.outcome,
        "cohort_size": view.cohort_size,
        "accepted": view.accepted,
        "statistics": view.figures.statistics,
        "closed_at": view.closed_at or 0.0,
    }
