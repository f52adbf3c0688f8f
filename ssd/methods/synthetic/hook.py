"""The server hook of the synthetic method: cheap, and changed by a change of anything it is given.

A wrong base or set, collected values in another order, a state or an artefact of another commit: each changes the
result, and with it the digest of the next model version. This module imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssd.digest import canonical_json, digest_bytes
from ssd.method.protocol import CollectedUpdate, Reduction, ReductionResult
from ssd.methods.synthetic.numbers import fill, key
from ssd.updates.declaration import Declaration

DRIFT = "drift"
DRIFT_SHAPE = (4, 8)
"""The round artefact."""


def reduce_synthetically(declaration: Declaration, scale: float, reduction: Reduction) -> ReductionResult:
    """Half the reduced delta, or the mean of the collected values, plus noise that follows from all inputs."""
    delta = np.float32(0.5) * reduction.delta
    encoder = declaration.spec.groups["encoder"]
    seen = hashlib.sha256()
    if declaration.collects:
        delta[encoder] = _running_mean(reduction.collected, encoder.stop - encoder.start, seen)
    calls = int(np.asarray(reduction.state["calls"], np.int64)[()]) if reduction.state else 0
    chain = reduction.state["chain"].tobytes() if reduction.state else bytes(32)
    received = {
        "rounds": reduction.rounds,
        "weight": reduction.weight,
        "clients": reduction.clients,
        "values": dict(reduction.values),
        "statistics": {name: float(value) for name, value in reduction.statistics.items()},
        "artefacts": {name: digest_bytes(values) for name, values in reduction.artefacts.items()},
        "base": digest_bytes(reduction.base),
        "delta": digest_bytes(reduction.delta),
        "collected": seen.hexdigest(),
        "calls": calls,
    }
    identity = key("hook", reduction.run_seed, reduction.round)
    grown = hashlib.sha256(identity + chain + canonical_json(received)).digest()
    noise = np.empty(encoder.stop - encoder.start, np.float32)
    fill(noise, grown, 0.01 * scale)
    delta[encoder] += noise
    drift = np.empty(DRIFT_SHAPE, np.float32)
    fill(drift.reshape(-1), grown, 1.0)
    return ReductionResult(
        delta=delta,
        # One array without dimensions and one of bytes: what is kept must keep both.
        state={"calls": np.array(calls + 1, np.int64), "chain": np.frombuffer(grown, np.uint8)},
        artefacts={DRIFT: drift},
        metrics={"hook_calls": float(calls + 1)},
    )


def _running_mean(updates: Sequence[CollectedUpdate], size: int, seen: hashlib._Hash) -> NDArray[np.float32]:
    """Computes a running mean in float32, whose last bits depend on the order of the updates.

    So a call in another order is noticed. The other values of each update go into the digest `seen`.
    """
    mean = np.zeros(size, np.float32)
    for count, update in enumerate(updates, 1):
        mean += (update.groups["encoder"] - mean) / np.float32(count)
        loss = float(update.statistics["loss_sum"])
        seen.update(canonical_json({"client": update.client, "weight": update.weight, "loss": loss}))
    return mean
