"""Seconds per round through the real daemons, beside the wire floor of the same machine in the same run.

    python tests/benchmarks/bench_rounds.py [--rounds 8] [--workers 8] [--parameters 1100000 11200000]
                                            [--hosted 1] [--encoding float32] [--insecure] [--json]

`synthetic` clients, one per worker process unless `--hosted` says more. A round is counted from commit to commit, so it
holds everything: announcement, delta down, training (a few ms), update up, checks, fold, new version, the synced files,
the journal, and mutual TLS unless `--insecure`. Processor seconds are those of all processes of a side, divided by the
rounds that passed between the two looks, which is the robust figure where other work shares the cores; the load of the
machine is printed beside it. `/metrics` is asked once a second. The floor is the same bytes down and up over bare
grpcio streams between as many processes, under the same TLS.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve()
TREE = Path(os.environ.get("SSD_BENCH_TREE") or HERE.parents[2])
sys.path[:0] = [str(TREE / "tests" / "support"), str(TREE), str(TREE / "proto"), str(HERE.parent)]

import grpc
import numpy as np

import wire_floor
from processes.federation import Federation

TICK = os.sysconf("SC_CLK_TCK")
WARM_UP = 2
"""Rounds that are not counted."""


@dataclass(frozen=True)
class Measured:
    """What one federation's rounds took."""

    seconds: list[float]
    """Of each counted round, commit to commit."""
    coordinator_cpu: float
    """Processor seconds a round of the coordinator and its children."""
    workers_cpu: float
    peak_mb: float
    """The coordinator's peak resident memory."""


def family(roots: Iterable[int]) -> set[int]:
    """Processes and all that they started."""
    found, pending = set(), list(roots)
    while pending:
        one = pending.pop()
        if one in found:
            continue
        found.add(one)
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            pending += map(int, children.read_text().split())
    return found


def processor_seconds(roots: Iterable[int]) -> float:
    """User and system time of processes and their descendants, those that ended among them."""
    total = 0
    for one in family(roots):
        fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        total += sum(map(int, fields[11:15]))
    return total / TICK


def setting(text: str) -> tuple[str, object]:
    """`table.key=value`, the value as JSON."""
    name, _, value = text.partition("=")
    return name, json.loads(value)


def settings(options: argparse.Namespace, parameters: int, clients: list[str]) -> dict[str, object]:
    """The coordinator's, as dotted keys."""
    return {
        "run.clients": clients,
        "run.rounds": 100_000,
        "round.cohort_size": len(clients),
        "wire.update_encoding": options.encoding,
        "wire.delta_encoding": options.encoding,
        "retention.deltas": 2,
        "retention.full_versions": 1,
        "limits.heartbeat_seconds": 5.0,
        "method.config": {"parameters": parameters},
        **dict(options.settings),
    }


def rounds(options: argparse.Namespace, parameters: int) -> Measured:
    """Run one federation until `options.rounds` rounds after the warm-up have passed."""
    workers = [
        [f"client-{worker:03d}-{index:04d}" for index in range(options.hosted)]
        for worker in range(options.workers)
    ]
    clients = [client for hosted in workers for client in hosted]
    with tempfile.TemporaryDirectory() as scratch:
        federation = Federation(
            Path(scratch), insecure=options.insecure, **settings(options, parameters, clients)
        )
        with federation:
            coordinator = federation.start_coordinator().process.pid
            started = [federation.start_worker(f"worker-{i}", c).process.pid for i, c in enumerate(workers)]
            looks: list[tuple[int, float, float]] = []
            while not looks or looks[-1][0] - looks[0][0] < options.rounds:
                time.sleep(1.0)
                version = int(federation.metric("ssd_coordinator_model_version"))
                if version >= WARM_UP:
                    looks.append((version, processor_seconds([coordinator]), processor_seconds(started)))
            status = Path(f"/proc/{coordinator}/status").read_text()
            peak = int(status.split("VmHWM:")[1].split()[0]) / 1e3
            assert federation.coordinator is not None
            federation.coordinator.terminate()
            store = federation.store()
            try:
                at = [version.committed_at for version in store.versions()]
            finally:
                store.close()
    (first, ours, theirs), (last, ours_later, theirs_later) = looks[0], looks[-1]
    return Measured(
        seconds=[later - earlier for earlier, later in itertools.pairwise(at[first : last + 1])],
        coordinator_cpu=(ours_later - ours) / (last - first),
        workers_cpu=(theirs_later - theirs) / (last - first),
        peak_mb=peak,
    )


def report(options: argparse.Namespace, parameters: int) -> None:
    """Measure one size and print it."""
    widths = {"float32": 4, "float16": 2, "int8": 1}
    size = widths[options.encoding] * parameters
    found = rounds(options, parameters)
    if options.json:
        name = f"{options.workers} x {parameters:,} {options.encoding}, {options.hosted} hosted"
        figures = {
            "seconds": statistics.median(found.seconds),
            "coordinator_cpu_seconds": found.coordinator_cpu,
            "workers_cpu_seconds": found.workers_cpu,
            "cpu_seconds": found.coordinator_cpu + found.workers_cpu,
            "peak_mb": found.peak_mb,
        }
        print(json.dumps({"name": name, **figures}), flush=True)
        return
    floor = wire_floor.measure(options.workers, size, size, insecure=options.insecure)
    seconds, cpu = statistics.median(found.seconds), found.coordinator_cpu + found.workers_cpu
    print(
        f"{parameters:12,d} {floor.seconds:8.3f} {floor.cpu_seconds:8.2f} {seconds:8.3f} {min(found.seconds):7.3f}"
        f" {max(found.seconds):7.3f} {seconds / floor.seconds:6.1f} {found.coordinator_cpu:8.2f}"
        f" {found.workers_cpu:8.2f} {cpu / floor.cpu_seconds:6.1f} {found.peak_mb:8.0f} {os.getloadavg()[0]:6.1f}",
        flush=True,
    )


def main() -> None:
    """Parse and print a table, or JSON lines for compare.py."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--hosted", type=int, default=1, help="clients of each worker")
    parser.add_argument("--parameters", type=int, nargs="+", default=[1_100_000, 11_200_000])
    parser.add_argument("--encoding", choices=["float32", "float16", "int8"], default="float32")
    parser.add_argument(
        "--set", dest="settings", type=setting, action="append", default=[], metavar="TABLE.KEY=JSON",
        help="another setting of the coordinator",
    )  # fmt: skip
    parser.add_argument("--insecure", action="store_true", help="without TLS, to see what it costs")
    parser.add_argument("--json", action="store_true", help="one JSON object a line and no floor")
    options = parser.parse_args()
    if not options.json:
        print(
            f"{os.cpu_count()} cores, Python {platform.python_version()}, grpcio {grpc.__version__}, numpy"
            f" {np.__version__}; {options.workers} workers x {options.hosted} clients, {options.encoding} both ways,"
            f" {'no TLS' if options.insecure else 'mutual TLS'}"
        )
        print(
            f"{'parameters':>12} {'floor s':>8} {'CPU-s':>8} {'round s':>8} {'min':>7} {'max':>7} {'ratio':>6}"
            f" {'coord.':>8} {'workers':>8} {'ratio':>6} {'peak MB':>8} {'load':>6}"
        )
    for parameters in options.parameters:
        report(options, parameters)


if __name__ == "__main__":
    main()
