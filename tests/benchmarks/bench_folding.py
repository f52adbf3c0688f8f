"""Speed of checking, folding and packing one ResNet-18-sized update on one core, beside plain memory copies.

python tests/benchmarks/bench_folding.py [parameters]      (with the repository root on the path)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

from ssd.digest import digest_bytes
from ssd.method.protocol import ClientResult, ClientTask
from ssd.method.registry import load
from ssd.updates.codec import Encoding
from ssd.updates.fold import Fold, FoldPlan, check_fold, check_update, encode_update

REPEATS = 5


def best_ms(act: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def main(parameters: int) -> None:
    method = load("synthetic", {"parameters": parameters})
    base = method.initial(1, None)
    task = ClientTask(run_seed=1, round=1, rounds=1, client_id="client-000", base=base)
    result = method.train(task, None, lambda step, steps, losses: None)
    room = np.empty_like(base)
    print(f"{parameters} parameters, {base.nbytes / 1e6:.1f} MB as float32; times in ms, best of {REPEATS}")
    print(
        f"memory copy {best_ms(lambda: np.copyto(room, base)):.1f}   digest {best_ms(lambda: digest_bytes(base)):.1f}"
    )
    for encoding in Encoding:
        plan = FoldPlan.create(method.declare(), encoding, 10 * REPEATS, 64)
        times = fold_times(plan, result)
        print(f"{encoding.value:8}", "  ".join(f"{name} {value:.1f}" for name, value in times.items()))


def fold_times(plan: FoldPlan, result: ClientResult) -> dict[str, float]:
    body = encode_update(plan, result.delta, result.statistics)
    fold = Fold(plan)
    times = {
        "encode": best_ms(lambda: encode_update(plan, result.delta, result.statistics)),
        "check_update": best_ms(lambda: check_update(plan, body, result.weight)),
        "add_update": best_ms(lambda: fold.add_update(body, result.weight)),
        "pack": best_ms(fold.pack),
    }
    packed, weight, clients = fold.pack(), fold.weight, fold.clients
    times["check_fold"] = best_ms(lambda: check_fold(plan, packed, weight, clients))
    times["add_fold"] = best_ms(lambda: fold.add_fold(packed, weight, clients))
    times["open"] = best_ms(fold.open)
    return times


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 11_200_000)
