"""Ports of a process that may die at any call, over a medium that may fail."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from simulation.processes import Process

JOURNAL_WRITES = frozenset(
    {
        "create_run",
        "finish_run",
        "reopen_run",
        "register_clients",
        "assign",
        "revoke_client",
        "bind_clients",
        "move_client",
        "open_attempt",
        "close_attempt",
        "abandon_attempt",
        "commit",
        "keep_client_history",
        "forget_version_blobs",
        "record_evaluation",
        "set_flag",
    }
)
BLOB_WRITES = frozenset({"remove", "lend"})
WORKER_WRITES = frozenset(
    {
        "enter_run",
        "remember_version",
        "remember_level",
        "keep",
        "keep_fold",
        "forget",
        "drop",
        "promote",
        "reinitialise",
        "add_version",
        "drop_versions",
        "remember_round",
        "remember_opened",
        "remember_upload",
        "remember_clients",
        "remember_signed",
        "remember_refused",
    }
)


@dataclass
class DeathPoint:
    """The process ends at the `count`-th write from when it is armed, before or after the write is done."""

    count: int
    after: bool = False
    name: str = ""
    """Only calls of this name count; empty: all."""


class Writes:
    """Every write of one process passes here.

    Args:
        process: whose.
        now: virtual seconds.
        failure: makes what the product knows as a failing medium out of a sentence.
    """

    def __init__(
        self, process: Process, now: Callable[[], float], failure: Callable[[str], Exception]
    ) -> None:
        self._process = process
        self._now = now
        self._failure = failure
        self.points: list[DeathPoint] = []
        self.done: list[str] = []
        """Names of the writes that were carried out."""
        self.after: Callable[[str, tuple[Any, ...]], None] = lambda name, arguments: None

    def carry_out(self, name: str, write: Callable[..., Any], arguments: tuple[Any, ...], named: Any) -> Any:
        """Do a write, or what becomes of it."""
        self._process.alive()
        due = [point for point in self.points if point.name in ("", name)]
        for point in due:
            point.count -= 1
        ends = [point for point in due if point.count <= 0]
        if any(not point.after for point in ends):
            self._process.die()
            self._process.alive()
        if trouble := self._process.medium.trouble(self._now()):
            raise self._failure(f"{name}: {trouble}")
        result = write(*arguments, **named)
        self.done.append(name)
        self.after(name, arguments)
        if ends:
            self._process.die()
            self._process.alive()
        return result


class Guarded:
    """Anything with methods: those in `names` are writes, all end with the process."""

    def __init__(self, subject: Any, process: Process, writes: Writes, names: Collection[str]) -> None:
        self._subject = subject
        self._process = process
        self._writes = writes
        self._names = names

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._subject, name)
        if not callable(value):
            return value

        def call(*arguments: Any, **named: Any) -> Any:
            if name in self._names:
                return self._writes.carry_out(name, value, arguments, named)
            if name not in ("close", "discard"):
                self._process.alive()
            return value(*arguments, **named)

        return call


class GuardedBlobs(Guarded):
    """`coordinator.ports.blobs.Blobs`: a blob is written when its writer finishes."""

    def __init__(self, subject: Any, process: Process, writes: Writes) -> None:
        super().__init__(subject, process, writes, BLOB_WRITES)

    def create(self) -> Any:
        """A guarded writer."""
        self._process.alive()
        return Guarded(self._subject.create(), self._process, self._writes, {"finish"})

    def free_bytes(self) -> int:
        """None on a full disk."""
        return 0 if self._process.medium.trouble(self._writes._now()) else int(self._subject.free_bytes())


class GuardedMemory(Guarded):
    """The worker's store, with its memory of rounds under secure aggregation."""

    @property
    def secure(self) -> Any:
        """`ssd.secagg.client.participant.RoundMemory`."""
        return Guarded(self._subject.secure, self._process, self._writes, self._names)
