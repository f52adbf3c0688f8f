"""Flower's SecAgg+ client steps, timed in an interpreter of their own that `bench_secure_aggregation.py` talks to.

Reads one JSON request a line from standard input, answers with one JSON line. Only calls into the installed `flwr`, in
the order in which its `secaggplus_mod` does; keys are agreed on beforehand, as on our side.
"""

from __future__ import annotations

import json
import os
import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_combine,
    parameters_addition,
    parameters_mod,
    parameters_multiply,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

try:
    from flwr.common.parameter import ndarray_to_bytes
except ImportError:
    from flwr.common import ndarray_to_bytes

CLIPPING, TARGET_RANGE, MODULUS = 8.0, 1 << 22, 1 << 32
"""The defaults of `SecAggPlusWorkflow`."""
_vectors: dict[int, np.ndarray] = {}


def measured(act: Callable[[], object], memory: bool) -> tuple[float, object]:
    """CPU seconds, or the traced peak in bytes."""
    if memory:
        tracemalloc.start()
        result = act()
        peak = float(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        return peak, result
    start = time.process_time()
    result = act()
    return time.process_time() - start, result


def mask(size: int, neighbours: int) -> int:
    if size not in _vectors:
        _vectors[size] = np.random.default_rng(0).standard_normal(size, dtype=np.float32) * np.float32(0.01)
    parameters = parameters_multiply([_vectors[size]], 0.6)
    quantised = factor_combine(600, quantize(parameters, CLIPPING, TARGET_RANGE))
    shapes = [each.shape for each in quantised]
    quantised = parameters_addition(quantised, pseudo_rand_gen(os.urandom(32), MODULUS, shapes))
    for i in range(neighbours):
        pairwise = pseudo_rand_gen(os.urandom(32), MODULUS, shapes)
        combine = parameters_addition if i % 2 else parameters_subtraction
        quantised = combine(quantised, pairwise)
    return sum(len(ndarray_to_bytes(each)) for each in parameters_mod(quantised, MODULUS))


def answer(request: dict) -> dict:
    memory = bool(request.get("memory"))
    if request["step"] == "mask":
        value, nbytes = measured(lambda: mask(request["size"], request["neighbours"]), memory)
        return {"value": value, "nbytes": nbytes}
    secret = (
        os.urandom(32) if request["secret"] == "seed" else os.urandom(241)
    )  # a PEM private key has 241 bytes
    if request["step"] == "share":
        return {
            "value": measured(lambda: create_shares(secret, request["threshold"], request["holders"]), False)[
                0
            ]
        }
    shares = create_shares(secret, request["threshold"], request["holders"])[: request["threshold"]]
    value, rebuilt = measured(lambda: combine_shares(shares), False)
    assert rebuilt == secret
    return {"value": value}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
