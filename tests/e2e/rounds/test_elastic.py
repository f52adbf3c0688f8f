"""Elastic rounds: goal count, over-selection, deadline; replaying the journaled sets gives the same digests."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from coordinator.core.strategies.registry import Rates, create
from coordinator.store.files.blobs import FileBlobs
from coordinator.versions.next_version import VersionMaker
from processes.federation import Federation
from ssd.method.protocol import ClientTask
from ssd.method.registry import load
from ssd.updates.codec import Encoding
from ssd.updates.declaration import Declaration
from ssd.updates.fold import Fold, FoldPlan, encode_update
from ssd.updates.spec import model_digest
from ssd_proto.v1 import federation_pb2 as pb

pytestmark = pytest.mark.e2e
CLIENTS = [f"client-{index:03d}" for index in range(10)]
METHOD = {"parameters": 5000, "state": False}


def replay(federation: Federation, folder: Path) -> list[str]:
    """Recompute every version from the journal alone, with its blobs below `folder`: declaration, seed, accepted sets."""
    store = federation.store()
    try:
        run = store.current_run()
        assert run is not None
        committed = sorted(
            (each for each in store.attempts() if each.outcome == "committed"), key=lambda each: each.round
        )
        scaling = {record.client: record.scaling for record in store.clients()}
    finally:
        store.close()
    declaration = Declaration.from_json(run.declaration)
    method = load(declaration.method, dict(declaration.config))
    plan = FoldPlan.create(declaration, Encoding.FLOAT16, 6, 65536)
    blobs = FileBlobs(folder)
    maker = VersionMaker(declaration, create("average", Rates()), Encoding.FLOAT16, blobs)
    vector = method.initial(5, None)
    digests = [model_digest(declaration.spec, vector)]
    writer = blobs.create()
    writer.write(vector.tobytes())
    full, state = writer.finish(), {}
    for attempt in committed:
        fold = Fold(plan)
        base = blobs.open(full.digest).map().view("<f4")
        for client in reversed(attempt.accepted):
            result = method.train(
                ClientTask(
                    run_seed=5,
                    round=attempt.round,
                    rounds=4,
                    client_id=client,
                    base=np.array(base),
                    scaling=scaling[client],
                ),
                None,
                lambda *_: None,
            )
            fold.add_update(encode_update(plan, result.delta, result.statistics), result.weight)
        made = maker.make(fold.open(), full, state, lambda write: write())
        digests.append(made.model_digest)
        full, state = made.full, made.server_state
    return digests


def test_replaying_the_journaled_sets_gives_the_same_digests(tmp_path: Path) -> None:
    luck = random.Random(3)
    settings = {
        "run.mode": "elastic",
        "run.rounds": 4,
        "run.expected_clients": 10,
        "round.cohort_size": 4,
        "round.over_selection": 1.5,
        "round.deadline_seconds": 3.0,
        "round.min_updates": 2,
        "method.config": METHOD,
    }
    with Federation(tmp_path, **settings) as federation:
        federation.start_coordinator()
        with federation.raw_worker("w", CLIENTS) as worker:
            worker.attend().learn()
            while (message := worker.next()).WhichOneof("kind") != "run_changed":
                if message.WhichOneof("kind") != "train":
                    continue
                task = message.train
                assert len(task.clients) == 6
                assert 0 < task.upload_within_seconds < 3.0
                # The second round leaves two of the goal to the deadline, the others close at the goal.
                reporting = luck.sample(list(task.clients), 2 if task.round == 2 else 6)
                for each in reporting:
                    body, weight = worker.train(task, each.client)
                    verdict, _, _ = worker.submit(worker.envelope(task, {each.client: weight}, body), body)
                    # After the goal the rest comes too late; after the last round nobody is there any more.
                    if verdict is not None and verdict.fate != pb.Verdict.FATE_ACCEPTED:
                        assert verdict.reason in ("too_late", "stale_attempt", "draining")
        assert federation.finish() == 0
        digests = federation.digests()
        store = federation.store()
        accepted = {
            each.round: len(each.accepted) for each in store.attempts() if each.outcome == "committed"
        }
        store.close()
        assert accepted == {1: 4, 2: 2, 3: 4, 4: 4}
        assert replay(federation, tmp_path / "replay") == digests


def test_a_round_with_too_few_clients_says_so_and_starts_when_they_come(tmp_path: Path) -> None:
    settings = {
        "run.mode": "elastic",
        "run.rounds": 1,
        "run.expected_clients": 10,
        "round.cohort_size": 4,
        "method.config": METHOD,
    }
    with Federation(tmp_path, **settings) as federation:
        coordinator = federation.start_coordinator()
        with (
            federation.raw_worker("one", CLIENTS[:3]) as one,
            federation.raw_worker("two", CLIENTS[3:5]) as two,
        ):
            one.attend().learn()
            federation.until(lambda: federation.status().connected_clients == 3, "three clients connected")
            status = federation.status()
            assert status.phase == "waiting"
            assert "needs 4 connected clients, 3 are connected" in status.waiting_for
            assert federation.metric("ssd_coordinator_waiting_for_clients") == 1
            assert coordinator.events("waiting")
            two.attend().learn()
            for worker in (one, two):
                message = worker.next()
                if message.WhichOneof("kind") == "train":
                    worker.contribute(message.train)
        assert federation.finish() == 0
        assert len(federation.digests()) == 2
