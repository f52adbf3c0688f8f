"""Floods of messages of secure aggregation: they cost whoever sends them, and nobody else's round or memory."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from processes.federation import ROOT, Federation
from ssd_proto.v1 import federation_pb2 as pb

pytestmark = pytest.mark.e2e
STEPPED = ROOT / "tests" / "support" / "training" / "stepped.py"
HONEST = [f"client-{index}" for index in range(4)]
MIB = 1 << 20
FLOOD = 3000
REJECTED = "ssd_coordinator_secure_aggregation_messages_rejected_total"
SETTINGS: dict[str, Any] = {
    "run.mode": "elastic",
    "run.clients": [*HONEST, "odd-client"],
    "run.rounds": 3,
    "run.when_done": "serve",
    "round.cohort_size": 4,
    "round.over_selection": 1.25,
    "round.min_updates": 4,
    "round.deadline_seconds": 15.0,
    "round.retry_seconds": 0.5,
    "limits.max_client_weight": 64,
    "method.name": STEPPED,
    "method.config": {"parameters": 5000, "train_seconds": 0.2},
    "secure_aggregation.level": "passive",
    "secure_aggregation.assumed_corrupt": 0.0,
    "secure_aggregation.tolerated_dropout": 0.34,
    "secure_aggregation.phase_seconds": 5.0,
}


def contents(told: bytes) -> Iterator[bytes]:
    """Noise, nothing, a megabyte, what the coordinator said itself, and that with a bit turned over; for ever."""
    draw = random.Random(1)
    for number in itertools.count():
        match number % 5:
            case 0:
                yield draw.randbytes(draw.randrange(2000))
            case 1:
                yield b""
            case 2:
                yield draw.randbytes(1) * (MIB if number % 100 == 2 else 5000)
            case 3:
                yield told
            case _:
                spoilt = bytearray(told)
                spoilt[draw.randrange(len(spoilt))] ^= 1 << draw.randrange(8)
                yield bytes(spoilt)


def peak(federation: Federation) -> float:
    return federation.metric("ssd_coordinator_memory_peak_bytes")


@pytest.mark.parametrize("round_id", ["its own", "another"])
def test_a_flood_spoils_no_round_and_fills_no_memory(tmp_path: Path, round_id: str) -> None:
    with Federation(tmp_path, **SETTINGS) as federation:
        coordinator = federation.start_coordinator()
        config = {"methods.stepped": STEPPED, "secure_aggregation.level": "passive"}
        for index in range(2):
            federation.start_worker(f"honest-{index}", HONEST[index::2], config=config)
        with federation.raw_worker("odd", ["odd-client"]) as odd:
            odd.attend()
            offer = odd.expect("secure_aggregation")
            assert offer.message
            before = peak(federation)
            where = offer.round_id if round_id == "its own" else bytes(len(offer.round_id))
            for content in itertools.islice(contents(offer.message), FLOOD):
                said = pb.SecureAggregation(round_id=where, message=content)
                odd.up.put(pb.WorkerMessage(secure_aggregation=said))
            federation.until(
                lambda: federation.status().version.number == 3, "the honest ones finish", patience=90
            )
            if round_id == "its own":
                (refused,) = coordinator.events("refused")
                assert refused["reason"] == "malformed_message"
                assert odd.status is not None
            else:
                refused = {"reason": "unexpected_message"}
                assert federation.metric(REJECTED, **refused) > 100
        assert peak(federation) - before < 64 * MIB
        store = federation.store()
        try:
            versions = store.versions()[1:]
        finally:
            store.close()
        assert [version.figures.statistics["clients"] for version in versions] == [4, 4, 4]
