"""Tasks: whose scaling vector a client gets in a round, and what makes two tasks equal."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.core.cohort import sample
from coordinator.core.effects import SendTrain
from coordinator.core.policy import Mode, RoundPolicy
from coordinator.ports.records import RunRecord
from coordinator.versions.quality import QualityRounds
from coordinator.workers.tasks import Tasks
from ssd.method.registry import load
from ssd.scaling import ScalingVector, assign
from ssd.updates.codec import Encoding
from ssd.updates.fold_plan import FoldPlan
from ssd_wire.messages import Artefact, BlobRef, ModelVersion

CLIENTS = [f"c{number:02}" for number in range(50)]
COHORT = 10
SCALING = {"dimension": 512, "alpha": 10.0, "block": 10}
BLOB = BlobRef(digest="0" * 64, size=4)
BASE = ModelVersion(number=0, model_digest="ab" * 32, full=BLOB, deltas=())


def tasks(assignment: str, seed: int = 3) -> Tasks:
    declaration = load("synthetic", {"scaling": {**SCALING, "assignment": assignment}}).declare()
    run = RunRecord(
        run_id="run",
        created_at=0.0,
        config={},
        declaration=declaration.to_json(),
        declaration_blob=BLOB,
        declaration_digest=declaration.digest,
    )
    plan = FoldPlan.create(declaration, Encoding.FLOAT32, COHORT, 1)
    made = Tasks(
        run=run,
        declaration=declaration,
        seed=seed,
        threads=1,
        expected_clients=len(CLIENTS),
        scaling={},
        quality=QualityRounds(plan, Encoding.FLOAT32, 0, dict),
    )
    made.assigned(made.vectors([(client, index) for index, client in enumerate(CLIENTS)]))
    return made


def cohort(round_number: int) -> tuple[str, ...]:
    policy = RoundPolicy(
        mode=Mode.REPRODUCIBLE, rounds=200, cohort_size=COHORT, seed=3, named_clients=tuple(CLIENTS)
    )
    return sample(policy, round_number, 1, CLIENTS)


def given(subject: Tasks, round_number: int, members: tuple[str, ...]) -> dict[str, ScalingVector]:
    subject.opened(round_number, members)
    found: dict[str, ScalingVector] = {}
    # Two workers share the cohort: positions are those of the whole sample.
    for half in (members[::2], members[1::2]):
        effect = SendTrain(worker="w", round=round_number, attempt=1, clients=half, upload_within_seconds=0.0)
        found |= {
            each.client: each.scaling for each in subject.train(effect, BASE, (), 200).clients if each.scaling
        }
    return found


def vector(index: int) -> ScalingVector:
    return assign(index, dimension=512, expected_clients=50, block=10, allocation="auto", alpha=10.0, seed=3)


def test_by_position_only_the_first_vectors_ever_occur() -> None:
    subject = tasks("position")
    first = {vector(position) for position in range(COHORT)}
    seen: dict[str, set[ScalingVector]] = {}
    for round_number in range(1, 201):
        vectors = given(subject, round_number, cohort(round_number))
        assert set(vectors.values()) == first
        for client, each in vectors.items():
            seen.setdefault(client, set()).add(each)
    # And a client meets now one, now another.
    assert set(seen) == set(CLIENTS)
    assert all(len(vectors) > 1 for vectors in seen.values())


def test_by_client_a_vector_belongs_to_its_client_for_ever() -> None:
    subject = tasks("client")
    own = {client: vector(index) for index, client in enumerate(CLIENTS)}
    assert len(set(own.values())) == len(CLIENTS)
    for round_number in range(1, 201):
        for client, each in given(subject, round_number, cohort(round_number)).items():
            assert each == own[client]


def test_positions_follow_from_seed_and_round_alone() -> None:
    members = cohort(1)
    assert given(tasks("position"), 1, members) == given(tasks("position"), 1, members)
    assert given(tasks("position"), 2, members) != given(tasks("position"), 1, members)


def test_no_vector_is_registered_with_a_client_where_they_belong_to_positions() -> None:
    assert set(tasks("position").vectors([("c00", 0), ("c01", 700)]).values()) == {(0, None), (700, None)}


def test_another_sample_is_another_task_where_vectors_belong_to_positions() -> None:
    by_position, by_client = tasks("position"), tasks("client")
    digests = []
    for members in (cohort(1), cohort(1)[:-1]):
        for subject in (by_position, by_client):
            subject.opened(1, members)
        digests.append([subject.digest(1, "b", (), 5) for subject in (by_position, by_client)])
    assert digests[0][0] != digests[1][0]
    assert digests[0][1] == digests[1][1]


@pytest.mark.parametrize("change", [{}, {"name": "other"}, {"blob": BlobRef(digest="1" * 64, size=4)}])
def test_round_artefacts_decide_a_task_and_travel_with_it(change: dict[str, Any]) -> None:
    subject = tasks("client")
    made = Artefact(**{"name": "drift", "blob": BLOB, "shape": (1,)} | change)
    other = Artefact(name="drift", blob=BlobRef(digest="2" * 64, size=4), shape=(1,))
    assert len({subject.digest(2, "b", each, 5) for each in ((), (made,), (other,))}) == 3
    effect = SendTrain(worker="w", round=2, attempt=1, clients=("c00",), upload_within_seconds=0.0)
    train = subject.train(effect, BASE, (made,), 5)
    assert train.artefacts == (made,)
    assert train.task_digest == subject.digest(2, BASE.model_digest, (made,), 5)
    assert subject.train(effect, BASE, (), 5).artefacts == ()
