"""Seconds and processor seconds until programs answer: their help, and daemons that serve.

    python tests/benchmarks/revisions/bench_startup.py [--repeat 5] [--json]

`listening` is a coordinator on a state directory that has a run already, from its start to its log line; `connected` a
worker without a metrics port, from its start to the session. Of each the best of several, as the machine has other work.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve()
TREE = Path(os.environ.get("SSD_BENCH_TREE") or HERE.parents[3])
sys.path[:0] = [str(TREE / "tests" / "support"), str(TREE), str(TREE / "proto")]

from processes.federation import Daemon, Federation

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TREE), str(TREE / "proto")])}


def of_children() -> float:
    """Processor seconds of children that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def best(work: Callable[[], float], repeat: int) -> dict[str, float]:
    """The least seconds that `work` gives, and the least processor seconds of its children."""
    seconds, used = [], []
    for _ in range(repeat):
        before = of_children()
        seconds.append(work())
        used.append(of_children() - before)
    return {"seconds": min(seconds), "cpu_seconds": min(used)}


def program(*arguments: str) -> Callable[[], float]:
    """Runs a program to its end."""

    def run() -> float:
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", *arguments],
            env=ENVIRONMENT,
            cwd=TREE,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return time.perf_counter() - started

    return run


def until(start: Callable[[], Daemon], event: str) -> Callable[[], float]:
    """Starts a daemon, waits for its line, ends it."""

    def run() -> float:
        started = time.perf_counter()
        daemon = start()
        before = len(daemon.events(event))
        while len(daemon.events(event)) <= before:
            assert daemon.running, daemon.log.read_text()[-2000:]
            time.sleep(0.01)
        taken = time.perf_counter() - started
        daemon.terminate()
        return taken

    return run


def main() -> None:
    """Print one line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object a line, for compare.py")
    options = parser.parse_args()

    def show(name: str, found: dict[str, float]) -> None:
        if options.json:
            print(json.dumps({"name": name, **found}), flush=True)
        else:
            print(f"{name:32} {found['seconds']:7.2f} s {found['cpu_seconds']:7.2f} CPU-s", flush=True)

    for name in ("coordinator", "worker", "ssd"):
        show(f"{name} --help", best(program(name, "--help"), options.repeat))
    with tempfile.TemporaryDirectory() as scratch:
        changes = {
            "run.clients": ["client"],
            "run.rounds": 100_000,
            "run.when_done": "serve",
            "round.cohort_size": 1,
        }
        with Federation(Path(scratch), **changes) as federation:
            federation.start_coordinator().terminate()

            def coordinator() -> Daemon:
                return federation.start_coordinator(wait=False)

            show("coordinator listening", best(until(coordinator, "listening"), options.repeat))
            running = federation.start_coordinator()
            quiet = {"worker.http_listen": ""}

            def worker() -> Daemon:
                return federation.start_worker("worker", ["client"], config=quiet)

            show("worker connected", best(until(worker, "connected"), options.repeat))
            running.terminate()


if __name__ == "__main__":
    main()
