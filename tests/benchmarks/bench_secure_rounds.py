"""Seconds per round under secure aggregation through the real daemons, beside the plain round in the same run.

    python tests/benchmarks/bench_secure_rounds.py [--workers 16] [--parameters 11200000] [--rounds 4] [--dropouts 3] [--levels passive active]

`synthetic` clients, one per worker process, that train for `--train-seconds` (a sleep, so that the key phases have a
training to hide behind, as they have on a GPU), elastic rounds, 24-bit masked values against float32 in the clear. A dropout is a worker that
has shared its keys and then does not upload, so that its masks have to be rebuilt from the others' shares. A round is counted from commit to commit.
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
from typing import Any

sys.path[:0] = [
    str(Path(__file__).resolve().parents[1] / "support"),
    str(Path(__file__).resolve().parents[2]),
]

import cryptography
import grpc
import numpy as np

from processes.federation import Federation
from ssd.federation.participant_registry import Vouching


def rounds(options: argparse.Namespace, level: str, dropouts: int) -> tuple[list[float], float]:
    """Seconds of each round after the second, and the coordinator's peak memory in MB."""
    clients = [f"client-{index:03d}" for index in range(options.workers)]
    wanted = options.workers - dropouts
    method: dict[str, Any] = {"parameters": options.parameters, "train_seconds": options.train_seconds}
    if dropouts:
        method["fail_clients"] = dict.fromkeys(clients[-dropouts:], "raise")
    with tempfile.TemporaryDirectory() as scratch:
        settings = {
            "run.mode": "elastic",
            "run.clients": clients,
            "run.rounds": options.rounds + 2,
            "run.when_done": "serve",
            "round.cohort_size": options.workers,
            "round.min_updates": wanted,
            "round.deadline_seconds": 600.0,
            "wire.update_encoding": "float32",
            "wire.delta_encoding": "float32",
            "retention.deltas": 2,
            "retention.full_versions": 1,
            "limits.heartbeat_seconds": 5.0,
            "limits.max_client_weight": 64,
            "secure_aggregation.level": level,
            "method.config": method,
        }
        with Federation(Path(scratch), **settings) as federation:
            workers = {f"worker-{index:02d}": [client] for index, client in enumerate(clients)}
            if level == "active":
                vouch(federation, workers)
            coordinator = federation.start_coordinator()
            for name, own in workers.items():
                federation.start_worker(name, own, config={"secure_aggregation.level": level})
            federation.until(
                lambda: federation.metric("ssd_coordinator_model_version") >= options.rounds + 2,
                "all rounds are committed",
                patience=1800,
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


def vouch(federation: Federation, workers: dict[str, list[str]]) -> None:
    """A signing key for each worker and a registry that names it, signed."""
    assert federation.pki is not None
    vouching = Vouching(federation.pki.folder, federation.pki.federation)
    registry = {"registry": str(vouching.registry), "registry_signer": vouching.signer}
    federation.config["secure_aggregation"] |= registry
    vouching.enter({name: (federation.pki.worker(name), own) for name, own in workers.items()})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--parameters", type=int, default=11_200_000)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--dropouts", type=int, default=3)
    parser.add_argument("--train-seconds", type=float, default=5.0)
    parser.add_argument("--levels", nargs="+", choices=("passive", "active"), default=["passive", "active"])
    options = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, grpcio {grpc.__version__},"
        f" cryptography {cryptography.__version__}, numpy {np.__version__}; {options.workers} workers,"
        f" {options.parameters:,d} parameters, training {options.train_seconds:g} s, {options.rounds} rounds counted, mutual TLS"
    )
    print(f"{'level':>8} {'dropouts':>8} {'round s':>9} {'min':>7} {'max':>7} {'ratio':>6} {'peak MB':>8}")
    plain: dict[int, float] = {}
    for level, dropouts in itertools.product(("off", *options.levels), (0, options.dropouts)):
        taken, peak = rounds(options, level, dropouts)
        median = statistics.median(taken)
        plain.setdefault(dropouts, median)
        print(
            f"{level:>8} {dropouts:8d} {median:9.2f} {min(taken):7.2f} {max(taken):7.2f} {median / plain[dropouts]:6.2f} {peak:8.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
