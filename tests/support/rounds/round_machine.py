"""Events and states of the pure round machine, as short as a test can say them."""

from __future__ import annotations

from dataclasses import replace

from coordinator.core import effects, events
from coordinator.core.policy import Mode, RoundPolicy
from coordinator.core.round import step
from coordinator.core.state import RunState

CLIENTS = ("a", "b", "c", "d")


def policy(**changes: object) -> RoundPolicy:
    base = RoundPolicy(mode=Mode.REPRODUCIBLE, rounds=3, cohort_size=2, seed=1, named_clients=CLIENTS)
    return replace(base, **changes)  # type: ignore[arg-type]


def start(**changes: object) -> RunState:
    return RunState(policy=policy(**changes), clients=frozenset(CLIENTS), waiting_since=0.0)


def attached(state: RunState, worker: str = "w", clients: tuple[str, ...] = CLIENTS, now: float = 0.0):
    return step(state, events.WorkerAttached(now=now, worker=worker, clients=clients))


def verified(state: RunState, *clients: str, worker: str = "w", upload: int = 1, now: float = 1.0):
    attempt = state.attempt
    assert attempt is not None
    return step(
        state,
        events.UploadVerified(
            now=now,
            upload=upload,
            worker=worker,
            round=attempt.round,
            attempt=attempt.number,
            clients=clients,
        ),
    )


def of(kind: type, todo: tuple[effects.Effect, ...]) -> list:
    return [effect for effect in todo if isinstance(effect, kind)]


def elastic(**changes: object) -> RunState:
    return start(**{"mode": Mode.ELASTIC, "named_clients": (), "deadline_seconds": 10.0, **changes})
