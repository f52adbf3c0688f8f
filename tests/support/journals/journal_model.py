"""What the journal must answer after any calls, in plain Python: the port's Behaviour lines, written a second time.

It shares neither tables nor checks with the code it judges; only the values of the chain are computed by the product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from coordinator.ports.records import AttemptRecord, ClientRecord, RunRecord, VersionRecord
from coordinator.store.journal import chain
from ssd.scaling import ScalingVector


class Refused(Exception):
    """The call contradicts what is stored."""


class JournalModel:
    """A journal with one run. Each method raises `Refused`, and then changes nothing, or does what the port says."""

    def __init__(self, federation: str, run: RunRecord, initial: VersionRecord) -> None:
        self._federation, self._run, self._finished = federation, run, False
        self._versions, self._chain = [initial], [chain.origin(run, initial)]
        self._committed = {0: initial}
        """The versions as they were handed in."""
        self._opened: dict[tuple[int, int], AttemptRecord] = {}
        self._attempts: dict[tuple[int, int], AttemptRecord] = {}
        self._clients: dict[str, ClientRecord] = {}
        self._bindings: dict[str, str] = {}
        self._evaluations: dict[int, Mapping[str, float]] = {}

    def answers(self) -> dict[str, Any]:
        """All that the journal can be asked, as `everything` of its contract asks it."""
        attempts = list(reversed(self._attempts.values()))
        return {
            "federation": self._federation,
            "run": asdict(self._run),
            "finished": self._finished,
            "clients": [asdict(record) for _, record in sorted(self._clients.items())],
            "attempts": [asdict(record) for record in attempts],
            "versions": [asdict(record) for record in self._versions],
            "evaluations": sorted(self._evaluations.items()),
            "paused": False,
            "bindings": self._bindings,
            "chain": self._chain,
            "granted": [],
            "chronicles": [{} for _ in attempts],
        }

    def _busy(self) -> bool:
        return any(each.outcome in {"open", "closed"} for each in self._attempts.values())

    def _found(self, number: int, attempt: int) -> AttemptRecord:
        _insist(not self._finished and (number, attempt) in self._attempts)
        return self._attempts[number, attempt]

    def register_clients(self, clients: Sequence[str], now: float) -> None:
        for client in clients:
            self._clients.setdefault(client, ClientRecord(client=client, registered_at=now))

    def assign(self, assignments: Mapping[str, tuple[int, ScalingVector | None]]) -> None:
        _insist(not self._finished)
        after = dict(self._clients)
        for client, (index, scaling) in assignments.items():
            _insist(client in after)
            if after[client].index is None:
                _insist(all(each.index != index for each in after.values()))
                after[client] = replace(after[client], index=index, scaling=scaling)
            _insist((after[client].index, after[client].scaling) == (index, scaling))
        self._clients = after

    def revoke_client(self, client: str) -> None:
        _insist(client in self._clients)
        self._clients[client] = replace(self._clients[client], revoked=True)

    def bind_clients(self, worker: str, clients: Sequence[str], now: float) -> None:
        _insist(all(self._bindings.get(client, worker) == worker for client in clients))
        self._bindings.update(dict.fromkeys(clients, worker))

    def move_client(self, client: str, worker: str, now: float) -> None:
        self._bindings[client] = worker

    def open_attempt(self, attempt: AttemptRecord) -> None:
        _insist(not self._finished)
        key, newest = (attempt.round, attempt.attempt), self._versions[-1]
        if key in self._opened:
            _insist(self._opened[key] == attempt)
            return
        _insist(not self._busy() and self._clients.keys() >= set(attempt.cohort))
        _insist((attempt.base_version, attempt.base_digest) == (newest.number, newest.model_digest))
        self._opened[key] = self._attempts[key] = attempt

    def close_attempt(self, number: int, attempt: int, accepted: Sequence[str]) -> None:
        _insist(len(set(accepted)) == len(accepted))
        found, names = self._found(number, attempt), tuple(sorted(accepted))
        if found.outcome in {"closed", "committed"} and found.accepted == names:
            return
        _insist(found.outcome == "open" and set(names) <= set(found.cohort))
        self._attempts[number, attempt] = replace(found, outcome="closed", accepted=names)

    def abandon_attempt(self, number: int, attempt: int, reason: str, now: float) -> None:
        found = self._found(number, attempt)
        if (found.outcome, found.reason) == ("abandoned", reason):
            return
        _insist(found.outcome in {"open", "closed"})
        self._attempts[number, attempt] = replace(found, outcome="abandoned", reason=reason, closed_at=now)

    def commit(self, version: VersionRecord, now: float) -> None:
        _insist(not self._finished)
        if version.number in self._committed:
            _insist(self._committed[version.number] == version)
            return
        _insist(version.number == self._versions[-1].number + 1)
        found = self._found(version.round, version.attempt)
        _insist(found.outcome == "closed")
        self._attempts[version.round, version.attempt] = replace(found, outcome="committed", closed_at=now)
        self._committed[version.number] = version
        self._versions.append(replace(version, committed_at=now))
        self._chain.append(chain.link(self._chain[-1], version, found.accepted))
        for client in found.accepted:
            before = self._clients[client]
            self._clients[client] = replace(
                before, last_committed_round=version.round, rounds_included=before.rounds_included + 1
            )

    def forget_version_blobs(self, numbers: Sequence[int]) -> None:
        _insist(all(0 <= number < self._versions[-1].number for number in numbers))
        for number in numbers:
            self._versions[number] = replace(self._versions[number], retained=False)

    def record_evaluation(self, version: int, values: Mapping[str, float], now: float) -> None:
        _insist(version in self._committed)
        self._evaluations[version] = values

    def finish_run(self) -> None:
        _insist(self._finished or not self._busy())
        self._finished = True


def _insist(condition: bool) -> None:
    if not condition:
        raise Refused
