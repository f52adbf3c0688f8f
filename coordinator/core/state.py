"""The round machine's state: frozen records, replaced and never changed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from coordinator.core.cohort import sample
from coordinator.core.policy import Mode, RoundPolicy


class Phase(StrEnum):
    """Where the run stands."""

    WAITING = "waiting"
    """For clients, or for the pause after an abandoned attempt."""
    TRAINING = "training"
    UNMASKING = "unmasking"
    """Secure aggregation: the set is journaled, its participants are asked for what opens their sum."""
    COMMITTING = "committing"
    PAUSED = "paused"
    HALTED = "halted"
    """Something only the operator can put right; `halt_reason` says what. Resume tries again."""
    DRAINED = "drained"
    FINISHED = "finished"


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One try at a round."""

    round: int
    number: int
    cohort: tuple[str, ...]
    """Invited clients, sorted."""
    goal: int
    """Close when this many clients are accepted."""
    opened_at: float
    deadline_at: float | None
    accepted: frozenset[str] = frozenset()
    failures: Mapping[str, int] = field(default_factory=dict)
    """Client -> failures so far in this attempt."""
    retry_at: Mapping[str, float] = field(default_factory=dict)
    """Client -> when to ask it again (reproducible mode)."""
    restored: bool = False
    """True: its accepted set was journaled before a crash; exactly these clients are collected again."""
    closed: bool = False
    """Secure aggregation: the accepted set is journaled and the masked uploads are on disk."""
    uploaders: frozenset[str] = frozenset()
    """Secure aggregation: workers whose masked upload was accepted. Each has one."""
    fewest_uploads: int | None = None
    """Secure aggregation: uploads a sum needs at least; None until the participants have exchanged their keys."""
    doomed: str = ""
    """Why it has to be abandoned; empty if it has not."""

    def wants(self, client: str) -> bool:
        """Whether an update of this client is still wanted."""
        return client not in self.accepted and self.invites(client)

    def invites(self, client: str) -> bool:
        """Whether the client is in the cohort. Asked of every client after every event: not by going through all."""
        at = bisect_left(self.cohort, client)
        return at < len(self.cohort) and self.cohort[at] == client


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """Everything the machine knows."""

    policy: RoundPolicy
    phase: Phase = Phase.WAITING
    version: int = 0
    attempt: Attempt | None = None
    attempts_made: int = 0
    """Attempts already opened for round `version + 1`."""
    clients: frozenset[str] = frozenset()
    """Registered and not revoked."""
    revoked: frozenset[str] = frozenset()
    indexes: Mapping[str, int] = field(default_factory=dict)
    """Assigned allocation index of every client that has one (revoked ones too)."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Connected client -> worker."""
    bindings: Mapping[str, str] | None = None
    """Client -> the only worker that may act for it; None where workers do not prove their names."""
    granted_workers: frozenset[str] = frozenset()
    """Workers whose clients were named for them; they may bring no others."""
    paused: bool = False
    draining: bool = False
    halt_reason: str = ""
    waiting_since: float | None = None
    retry_at: float | None = None
    """No new attempt before this time."""
    report_seconds: tuple[float, ...] = ()
    """Recent times from opening to acceptance; feeds the running-quantile deadline."""

    @property
    def round(self) -> int:
        """The round being worked on or due next."""
        return self.version + 1

    def belongs_to(self, client: str, worker: str) -> bool:
        """Whether a worker may act for a client: it is its own, or still nobody's and the worker may take it."""
        if self.bindings is None:
            return True
        owner = self.bindings.get(client)
        return owner == worker or (owner is None and worker not in self.granted_workers)

    def known(self) -> frozenset[str]:
        """Every client that was ever registered: as much work as there are. `strangers` asks of a few."""
        return self.clients | self.revoked | self.indexes.keys()

    def strangers(self, clients: Iterable[str]) -> tuple[str, ...]:
        """Those of some clients that were never registered, sorted. The work does not grow with the registry."""
        registry = (self.clients, self.revoked, self.indexes)
        return tuple(sorted(client for client in clients if not any(client in part for part in registry)))

    def connected(self) -> frozenset[str]:
        """Registered, unrevoked clients whose worker is attached."""
        return self.clients & self.hosts.keys()

    def missing(self) -> tuple[str, ...]:
        """Clients the present attempt still wants that no attached worker hosts, sorted."""
        if self.attempt is None:
            return ()
        accepted, hosts = self.attempt.accepted, self.hosts
        # Whoever is not accepted of the cohort is wanted: asked at every status of a cohort of ten thousand.
        return tuple(c for c in self.attempt.cohort if c not in accepted and c not in hosts)

    def waiting_for(self) -> tuple[int, str]:
        """How many clients are missing, and one sentence that says so; (0, "") when nothing is awaited."""
        if self.phase is Phase.HALTED:
            return 0, self.halt_reason
        if self.phase is Phase.TRAINING:
            missing = self.missing()
            if not missing:
                return 0, ""
            return len(missing), f"round {self.round}: not connected: {_shorten(missing)}"
        if self.phase is not Phase.WAITING:
            return 0, ""
        return self._waiting_to_open()

    def _waiting_to_open(self) -> tuple[int, str]:
        policy = self.policy
        if policy.mode is Mode.ELASTIC:
            short = policy.cohort_size - len(self.connected())
            if short > 0:
                return short, (
                    f"round {self.round} needs {policy.cohort_size} connected clients, "
                    f"{len(self.connected())} are connected"
                )
            workers = len({self.hosts[client] for client in self.connected()})
            if workers < policy.min_participants:
                return policy.min_participants - workers, (
                    f"secure aggregation needs {policy.min_participants} workers with clients, "
                    f"{workers} connected"
                )
            return 0, ""
        if policy.expected_clients is not None and not self.indexes:
            # Whoever is known at the first round is ranked together, so a fixed population waits for all of it.
            short = policy.expected_clients - len(self.clients)
            if short > 0:
                return short, f"{len(self.clients)} of {policy.expected_clients} expected clients registered"
        invited = sample(policy, self.round, self.attempts_made + 1, self.clients)
        if not any(client in self.hosts for client in invited):
            missing = max(1, len(invited))
            return missing, f"round {self.round}: none of its {missing} clients is connected"
        return 0, ""


def _shorten(names: tuple[str, ...], limit: int = 5) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
