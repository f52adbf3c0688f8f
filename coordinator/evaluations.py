"""Which versions are measured, and by whom: workers that offer labelled probe data."""

from __future__ import annotations

import math
from collections.abc import Mapping

from coordinator.catalogue import Catalogue
from coordinator.messages import Evaluate
from coordinator.ports import Store
from coordinator.sessions import SessionTable


class Evaluations:
    """At most one evaluation is under way, always of the newest version that is due. Owned by the driver's loop."""

    def __init__(self, store: Store, catalogue: Catalogue, sessions: SessionTable, every: int) -> None:
        self._catalogue = catalogue
        self._sessions = sessions
        self._every = every
        self._due: int | None = None
        self._asked: tuple[str, int] | None = None
        """(worker, version) under way."""
        done = store.evaluations()
        self._newest: tuple[int, Mapping[str, float]] = done[-1] if done else (0, {})
        self._measured = {version for version, _ in done}

    @property
    def newest(self) -> tuple[int, Mapping[str, float]]:
        """The last measured version and its values; (0, {}) before any."""
        return self._newest

    @property
    def outstanding(self) -> bool:
        """Whether a due evaluation can still be answered by somebody attached."""
        return self._asked is not None or (self._due is not None and self._evaluator() is not None)

    @property
    def wanted(self) -> frozenset[int]:
        """Versions that must stay whole until they are measured."""
        asked = None if self._asked is None else self._asked[1]
        return frozenset(version for version in (self._due, asked) if version is not None)

    def begin(self, version: int, *, last: bool) -> None:
        """The daemon started at `version`."""
        if version not in self._measured:
            self.committed(version, last=last)

    def committed(self, version: int, *, last: bool) -> None:
        """A version was committed; the last one of a run is always measured."""
        if self._every > 0 and (last or version % self._every == 0):
            self._due = version

    def offer(self, seed: int) -> None:
        """Ask an attached evaluator if something is due and nobody is at it."""
        if self._due is None or self._asked is not None:
            return
        worker = self._evaluator()
        if worker is None:
            return
        session = self._sessions.worker(worker)
        assert session is not None
        self._asked = (worker, self._due)
        session.send(Evaluate(version=self._catalogue.offer(self._due), run_seed=seed))
        self._due = None

    def done(
        self, worker: str, version: int, values: Mapping[str, float], error: str
    ) -> Mapping[str, float] | None:
        """An answer came: the values to keep, or None if it is not wanted or says nothing."""
        if self._asked != (worker, version):
            return None
        self._asked = None
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        if error or not finite:
            return None
        self._newest = (version, finite)
        self._measured.add(version)
        return finite

    def lost(self, worker: str) -> None:
        """An evaluator went away: what it was asked is due again."""
        if self._asked is not None and self._asked[0] == worker:
            if self._due is None:
                self._due = self._asked[1]
            self._asked = None

    def _evaluator(self) -> str | None:
        able = sorted(session.worker for session in self._sessions if session.capabilities.evaluates)
        return able[0] if able else None
