"""Milliseconds of processor time that the round machine takes for one event, by how many clients there are.

    python tests/benchmarks/revisions/bench_events.py [--json]

`attach`: a worker with one known client says hello (checks, transition, what the status and the gauges ask), with so many
clients registered, while the run waits for its first client and while it trains. `upload`: one of a cohort's clients is
accepted. Everything happens in this process, without files or network.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

TREE = Path(os.environ.get("SSD_BENCH_TREE") or Path(__file__).resolve().parents[3])
sys.path[:0] = [str(TREE), str(TREE / "proto")]

from coordinator.core import events
from coordinator.core.policy import Mode, RoundPolicy
from coordinator.core.registry import check_hello
from coordinator.core.round import step
from coordinator.core.state import Attempt, Phase, RunState
from ssd_wire.messages import Hello

REPEAT = 30


def milliseconds(work: Callable[[], object]) -> float:
    """The mean of some calls, after one that is not counted."""
    work()
    started = time.process_time()
    for _ in range(REPEAT):
        work()
    return (time.process_time() - started) / REPEAT * 1e3


def registered(count: int, *, hosts: int) -> RunState:
    """A run that knows `count` clients, of which the last `hosts` are connected, one with each worker."""
    clients = [f"client-{index:07d}" for index in range(count)]
    policy = RoundPolicy(mode=Mode.REPRODUCIBLE, rounds=1000, cohort_size=100, seed=3)
    return RunState(
        policy=policy,
        clients=frozenset(clients),
        indexes={client: index for index, client in enumerate(clients)},
        bindings={client: f"worker-{client}" for client in clients},
        hosts={client: f"worker-{client}" for client in clients[count - hosts :]},
        waiting_since=0.0,
    )


def attach(state: RunState) -> Callable[[], object]:
    """The hello of one known client's worker."""
    client = min(state.clients)
    hello = Hello(worker=f"worker-{client}", instance="0" * 32, clients={client: 0})

    def work() -> object:
        check_hello(state, hello)
        after, _ = step(state, events.WorkerAttached(now=1.0, worker=hello.worker, clients=(client,)))
        return after.waiting_for()

    return work


def upload(cohort: int) -> Callable[[], object]:
    """The last but one upload of a cohort whose members are all connected, one with each worker."""
    state = registered(cohort, hosts=cohort)
    members = tuple(sorted(state.clients))
    attempt = Attempt(
        round=1, number=1, cohort=members, goal=cohort, opened_at=0.0, deadline_at=None,
        accepted=frozenset(members[:-2]),
    )  # fmt: skip
    state = replace(state, phase=Phase.TRAINING, attempt=attempt)
    event = events.UploadVerified(
        now=1.0, upload="u", worker=f"worker-{members[-2]}", round=1, attempt=1, clients=(members[-2],)
    )
    return lambda: step(state, event)


def main() -> None:
    """Print one line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line, for compare.py")
    options = parser.parse_args()
    works: dict[str, Callable[[], object]] = {}
    for count in (1_000, 10_000, 100_000):
        waiting = registered(count, hosts=0)
        works[f"attach while waiting, {count:,} registered"] = attach(waiting)
        training = replace(waiting, phase=Phase.TRAINING, attempt=_attempt(waiting))
        works[f"attach while training, {count:,} registered"] = attach(training)
    for cohort in (10, 100, 1_000):
        works[f"upload of a cohort of {cohort:,}"] = upload(cohort)
    for name, work in works.items():
        taken = milliseconds(work)
        print(
            json.dumps({"name": name, "milliseconds": taken})
            if options.json
            else f"{name:48} {taken:9.3f} ms",
            flush=True,
        )


def _attempt(state: RunState) -> Attempt:
    cohort = tuple(sorted(state.clients)[:100])
    return Attempt(round=1, number=1, cohort=cohort, goal=100, opened_at=0.0, deadline_at=None)


if __name__ == "__main__":
    main()
