"""Seconds per round through the real daemons, beside the wire floor of the same machine in the same run.

    python tests/benchmarks/bench_rounds.py [--rounds 8] [--workers 8] [--parameters 1100000 11200000] [--insecure]

`synthetic` clients, one per worker process, float32 both ways. A round is counted from commit to commit, so it holds
everything: announcement, delta down, training (a few ms), update up, checks, fold, new version, two fsynced files, the
journal, and mutual TLS unless `--insecure`. The floor is the same bytes down and up over bare grpcio streams between as many processes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).resolve().parents[1] / "support"),
    str(Path(__file__).resolve().parents[2]),
]

import grpc
import numpy as np

import wire_floor
from processes.federation import Federation

GOALS = {1_100_000: 0.3, 11_200_000: 1.5}


def rounds(parameters: int, workers: int, count: int, *, insecure: bool = False) -> tuple[list[float], float]:
    """Seconds of each round after the second, and the coordinator's peak memory in MB."""
    clients = [f"client-{index:03d}" for index in range(workers)]
    with tempfile.TemporaryDirectory() as scratch:
        federation = Federation(
            Path(scratch),
            insecure=insecure,
            **{
                "run.clients": clients,
                "run.rounds": count + 2,
                "run.when_done": "serve",
                "round.cohort_size": workers,
                "wire.update_encoding": "float32",
                "wire.delta_encoding": "float32",
                "retention.deltas": 2,
                "retention.full_versions": 1,
                "limits.heartbeat_seconds": 5.0,
                "method.config": {"parameters": parameters},
            },
        )
        with federation:
            coordinator = federation.start_coordinator()
            for index, client in enumerate(clients):
                federation.start_worker(f"worker-{index}", [client])
            federation.until(
                lambda: federation.metric("ssd_coordinator_model_version") >= count + 2,
                "all rounds are committed",
                patience=600,
            )
            status = Path(f"/proc/{coordinator.process.pid}/status").read_text()
            peak = int(status.split("VmHWM:")[1].split()[0]) / 1e3
            coordinator.terminate()
            store = federation.store()
            try:
                at = [version.committed_at for version in store.versions()]
            finally:
                store.close()
    return [later - earlier for earlier, later in itertools.pairwise(at[2:])], peak


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--parameters", type=int, nargs="+", default=list(GOALS))
    parser.add_argument("--insecure", action="store_true", help="without TLS, to see what it costs")
    options = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, grpcio {grpc.__version__}, numpy {np.__version__};"
        f" {options.workers} workers, float32 both ways, {options.rounds} rounds counted,"
        f" {'no TLS' if options.insecure else 'mutual TLS'}"
    )
    print(
        f"{'parameters':>12} {'floor s':>9} {'round s':>9} {'min':>7} {'max':>7} {'ratio':>6} {'peak MB':>8} {'goal s':>7}"
    )
    for parameters in options.parameters:
        floor = wire_floor.measure(options.workers, 4 * parameters, 4 * parameters)
        taken, peak = rounds(parameters, options.workers, options.rounds, insecure=options.insecure)
        median = statistics.median(taken)
        goal = f"{GOALS[parameters]:7.2f}" if parameters in GOALS else "      -"
        print(
            f"{parameters:12,d} {floor:9.3f} {median:9.3f} {min(taken):7.3f} {max(taken):7.3f} {median / floor:6.1f}"
            f" {peak:8.0f} {goal}"
        )


if __name__ == "__main__":
    main()
