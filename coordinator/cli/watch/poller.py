"""Asks a coordinator again and again, and makes scenes of its answers. An absent coordinator is waited for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from coordinator.cli.watch.view import ROUNDS, Snapshot
from coordinator.errors import OperatorFault

Json = Any


class Source(Protocol):
    """The part of `coordinator.rpc.operator.client.OperatorClient` that is needed.

    Behaviour: every method but `close` raises an OperatorFault if there is no answer.
    """

    def status(self, *, details: bool = ...) -> Mapping[str, Json]:
        """The state now."""

    def rounds(self, limit: int = ..., *, counts_only: bool = ...) -> Sequence[Mapping[str, Json]]:
        """Attempts, newest first."""

    def close(self) -> None:
        """Give the connection up."""


class Watcher:
    """One scene a call.

    Args:
        address: of the coordinator, to be shown.
        connect: opens a connection; may raise an OperatorFault.
        now: monotonic seconds.
        waits_for: what may keep a coordinator from answering even the first time. Any other fault then is the
            caller's; once it has answered, every fault is shown and tried again.
    """

    def __init__(
        self,
        address: str,
        connect: Callable[[], Source],
        now: Callable[[], float],
        waits_for: tuple[type[OperatorFault], ...],
    ) -> None:
        self._connect = connect
        self._now = now
        self._waits_for = waits_for
        self._source: Source | None = None
        self._scene = Snapshot(address=address)
        self._heard: float | None = None
        self._known: tuple[Json, ...] = ()
        """What the rounds were asked for at; they are many, and change when this does."""

    def look(self) -> Snapshot:
        """Ask once.

        Raises:
            OperatorFault: see `waits_for`.
        """
        address = self._scene.address
        try:
            self._ask()
        except OperatorFault as fault:
            # A connection that failed waits longer and longer before it tries again; a new one tries at once.
            self.close()
            if self._heard is None and not isinstance(fault, self._waits_for):
                raise
            silent = None if self._heard is None else self._now() - self._heard
            return Snapshot(
                address=address,
                status=self._scene.status,
                rounds=self._scene.rounds,
                trouble=str(fault),
                silent_seconds=silent,
            )
        self._heard = self._now()
        return self._scene

    def close(self) -> None:
        """Give the connection up."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def _ask(self) -> None:
        if self._source is None:
            self._source = self._connect()
        status = self._source.status(details=True)
        key = tuple(status[name] for name in ("run_id", "version", "round", "attempt", "phase"))
        rounds = self._scene.rounds if key == self._known else self._source.rounds(ROUNDS, counts_only=True)
        self._scene, self._known = Snapshot(address=self._scene.address, status=status, rounds=rounds), key
