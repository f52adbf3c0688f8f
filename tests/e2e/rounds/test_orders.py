"""One set of updates, one digest: whatever the order, the grouping and the delays they arrive with."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from processes.federation import Federation
from ssd_proto.v1 import federation_pb2 as pb

pytestmark = pytest.mark.e2e
CLIENTS = [f"client-{index:03d}" for index in range(10)]
FLOAT_FOLD = ["swap:coordinator.sums.plain_sum:Fold=rounds.float_fold:FloatFold"]


def run(
    root: Path, order: int, *, fault: list[str] | None = None, grouped: bool = False, **changes: Any
) -> list[str]:
    """Two rounds by one hand-made worker that uploads in a shuffled order, alone or in folds of random size."""
    shuffle = random.Random(order)
    root.mkdir()
    settings = {"run.clients": CLIENTS, "run.rounds": 2, "method.config": {"parameters": 5000}, **changes}
    with Federation(root, **settings) as federation:
        federation.start_coordinator(fault=fault or [])
        federation.until(lambda: federation.coordinator.events("listening"), "the coordinator listens")
        with federation.raw_worker("w", CLIENTS) as worker:
            worker.attend().learn()
            for _ in range(2):
                task = worker.expect("train")
                updates = [(each.client, *worker.train(task, each.client)) for each in task.clients]
                shuffle.shuffle(updates)
                while updates:
                    size = shuffle.randint(1, 4) if grouped else 1
                    group, updates = updates[:size], updates[size:]
                    weights = {client: weight for client, _, weight in group}
                    if len(group) > 1:
                        body = worker.fold([(body, weight) for _, body, weight in group])
                    else:
                        body = group[0][1]
                    envelope = worker.envelope(task, weights, body, fold=len(group) > 1)
                    verdict, code, reason = worker.submit(envelope, body)
                    assert verdict is not None, (code, reason)
                    assert verdict.fate == pb.Verdict.FATE_ACCEPTED, verdict
        assert federation.finish() == 0
        return federation.digests()


def test_order_and_grouping_change_no_bit(tmp_path: Path) -> None:
    reference = run(tmp_path / "reference", 0)
    assert len(reference) == 3
    assert run(tmp_path / "shuffled", 1) == reference
    assert run(tmp_path / "folded", 2, grouped=True) == reference


def test_the_digest_test_fails_if_the_fold_adds_floats(tmp_path: Path) -> None:
    digests = {tuple(run(tmp_path / f"order-{order}", order, fault=FLOAT_FOLD)) for order in range(3)}
    assert len(digests) > 1, "a float fold went unnoticed"


@pytest.mark.parametrize("encoding", ["float32", "int8"])
def test_every_encoding_keeps_the_law(tmp_path: Path, encoding: str) -> None:
    wire = {"wire.update_encoding": encoding, "wire.delta_encoding": encoding, "strategy.name": "momentum"}
    first = run(tmp_path / "first", 3, **wire)
    assert run(tmp_path / "second", 4, grouped=True, **wire) == first
