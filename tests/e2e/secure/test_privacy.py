"""Differential privacy through real daemons: the noise in the committed model, its account, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from processes.federation import ROOT, Federation
from ssd.privacy.account import spent
from ssd.privacy.noise import NoisePlan
from ssd.privacy.settings import NoisePlace, PrivacySettings
from ssd.secagg.numbers.masked_plan import MaskedPlan, MaskedSettings
from ssd.updates.codec import Encoding
from ssd.updates.fold_plan import FoldPlan
from ssd_proto.v1 import operator_pb2 as operator_pb
from training import straight

pytestmark = pytest.mark.e2e
STRAIGHT = ROOT / "tests" / "support" / "training" / "straight.py"
SIZE = 20_000
CLIENTS = [f"client-{index}" for index in range(6)]
CLIP, NOISE, DELTA = 2.0, 0.5, 1e-4


def settings(mechanism: str, **changes: Any) -> dict[str, Any]:
    return {
        "run.mode": "elastic",
        "run.rounds": 2,
        "run.clients": CLIENTS,
        "round.cohort_size": 6,
        "round.min_updates": 6,
        "wire.delta_encoding": "float32",
        "retention.full_versions": 9,
        "method.name": STRAIGHT,
        "method.config": {"parameters": SIZE, "length": 500.0},
        "privacy.mechanism": mechanism,
        "privacy.clip_norm": CLIP,
        "privacy.noise_multiplier": NOISE,
        "privacy.delta": DELTA,
        **changes,
    }


def start(federation: Federation, workers: int, **config: Any) -> None:
    federation.start_coordinator()
    for index in range(workers):
        federation.start_worker(
            f"worker-{index}", CLIENTS[index::workers], config={"methods.straight": STRAIGHT, **config}
        )


def step_of(federation: Federation, number: int) -> NDArray[np.float64]:
    """What a version differs by from the one before."""
    folder = federation.state_dir / "blobs"
    vectors = []
    for version in federation.store().versions()[number - 1 : number + 1]:
        path = folder / version.full.digest[:2] / version.full.digest
        vectors.append(np.fromfile(path, "<f4").astype(np.float64))
    return vectors[1] - vectors[0]


def fold_plan() -> FoldPlan:
    declaration = straight.create({"parameters": SIZE, "length": 500.0}).declare()
    return FoldPlan.create(declaration, Encoding.FLOAT32, len(CLIENTS), 1, clip_norm=CLIP)


def deviation(plan: NoisePlan) -> float:
    """Of the noise in a sum, in the model's own units."""
    return math.sqrt(plan.variance) * 2.0**-plan.scale_bits


def assert_noise(step: NDArray[np.float64], deviation: float) -> None:
    """`step` is a mean over all clients; `deviation` of the noise in their sum."""
    noise = step[1:] * len(CLIENTS)
    # Five standard errors: one time in a million.
    assert abs(noise.var() / deviation**2 - 1) < 5 * math.sqrt(2 / noise.size)
    assert abs(noise.mean()) < 5 * deviation / math.sqrt(noise.size)
    # Every client's update of length 500 was scaled down to the bound.
    assert abs(step[0] * len(CLIENTS) - len(CLIENTS) * CLIP) < 5 * deviation


def test_central_noise_is_in_the_model_and_accounted_for_over_a_restart(tmp_path: Path) -> None:
    with Federation(
        tmp_path, insecure=True, **settings("central", **{"run.when_done": "serve"})
    ) as federation:
        start(federation, 1, **{"privacy.mechanism": "central", "privacy.min_noise_multiplier": NOISE})
        federation.until(lambda: federation.status().phase == "finished", "the run is finished")
        assert federation.coordinator is not None
        federation.coordinator.kill()
        federation.start_coordinator(**{"run.rounds": 3})
        federation.until(lambda: federation.status().version.number == 3, "a third round")
        terms = PrivacySettings(place=NoisePlace.CENTRAL, clip_norm=CLIP, noise_multiplier=NOISE, delta=DELTA)
        plan = NoisePlan.of(terms, SIZE, fold_plan().groups[0].scale_bits)
        for number in (1, 2, 3):
            assert_noise(step_of(federation, number), deviation(plan))
        expected = spent(plan, 3, 1).epsilon
        status = federation.status()
        assert status.statistics["privacy_epsilon"] == pytest.approx(expected)
        assert status.statistics["privacy_delta"] == DELTA
        assert status.privacy.startswith(f"epsilon {expected:.4g} at delta {DELTA:g} after 3 rounds")
        assert "the coordinator is trusted" in status.privacy
        # What clients know of themselves beside their clipped updates stays with them.
        assert "loss" not in status.statistics
        assert status.statistics["weight"] == len(CLIENTS)
        assert federation.metric("ssd_coordinator_privacy_epsilon", scope="total") == pytest.approx(expected)


def test_workers_noise_is_in_the_masked_sum(tmp_path: Path) -> None:
    changes = {
        "secure_aggregation.level": "passive",
        "secure_aggregation.assumed_corrupt": 0.3,
        "secure_aggregation.tolerated_dropout": 0.0,
        "secure_aggregation.clip": 10.0,
        "secure_aggregation.ring_bits": 32,
        "privacy.min_honest": 2,
        "run.rounds": 1,
        "run.when_done": "serve",
    }
    with Federation(tmp_path, **settings("distributed", **changes)) as federation:
        start(federation, 3, **{"privacy.mechanism": "distributed"})
        federation.until(lambda: federation.status().phase == "finished", "the run is finished")
        terms = PrivacySettings(
            place=NoisePlace.DISTRIBUTED, clip_norm=CLIP, noise_multiplier=NOISE, delta=DELTA, min_honest=2
        )
        masked = MaskedSettings(ring_bits=32, clip=10.0, max_client_weight=1, max_cohort=6, dp=terms)
        plan = MaskedPlan.create(fold_plan(), masked).noise
        assert plan is not None
        # Three added their parts, and two honest ones were to be enough.
        assert_noise(step_of(federation, 1), deviation(plan) * math.sqrt(3 / 2))
        statistics = federation.store().versions()[-1].figures.statistics
        assert statistics["privacy_honest"] == 2
        epsilon = statistics["privacy_epsilon"]
        assert epsilon == statistics["privacy_round_epsilon"] > 0
        # The status page and what goes into an exported file say the same.
        code, text = federation.http("/api/v1/status")
        overview = json.loads(text)
        assert (code, overview["secure_aggregation"]["level"]) == (200, "passive")
        assert overview["privacy"]["mechanism"] == "distributed"
        assert overview["privacy"]["epsilon"] == pytest.approx(epsilon)
        source = federation.operator(
            "Version", operator_pb.VersionRequest(newest=True), operator_pb.VersionReply
        ).provenance
        assert (source.secure_aggregation, source.total_weight) == ("passive", len(CLIENTS))
        assert source.privacy.startswith(f"epsilon {epsilon:.4g} at delta {DELTA:g} after 1 round")


def test_a_worker_that_asks_for_noise_works_for_no_run_without(tmp_path: Path) -> None:
    plain = settings("off", **{"run.mode": "reproducible"})
    with Federation(tmp_path, insecure=True, **plain) as federation:
        federation.start_coordinator()
        worker = federation.start_worker(
            "worker-0", CLIENTS, config={"methods.straight": STRAIGHT, "privacy.mechanism": "central"}
        )
        assert worker.wait() != 0
        assert "accepts nothing below 'central'" in worker.log.read_text()
        assert federation.status().version.number == 0
