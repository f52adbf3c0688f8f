"""Clients measured in a running federation: in the state of the version, whoever dies meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from processes.federation import Federation

pytestmark = pytest.mark.e2e
GROUPS = {"worker-a": ["c0", "c1", "c2"], "worker-b": ["c3"]}
SETTINGS = {
    "run.clients": ["c0", "c1", "c2", "c3"],
    "run.rounds": 4,
    "round.cohort_size": 3,
    "evaluation.every": 1,
    "evaluation.workers": ["evaluator"],
    # With the hook, every version has a round artefact that measuring needs too.
    "method.config": {
        "parameters": 3000,
        "client_evaluation": True,
        "hook": True,
        "artefacts": {"basis": [4]},
    },
}


def evaluations(federation: Federation) -> dict[int, Mapping[str, float]]:
    store = federation.store()
    try:
        return dict(store.evaluations())
    finally:
        store.close()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Mapping[str, float]]]:
    with Federation(tmp_path_factory.mktemp("reference"), **SETTINGS) as federation:
        federation.start_coordinator()
        federation.start_worker("worker-a", SETTINGS["run.clients"])
        assert federation.finish() == 0
        yield evaluations(federation)


def test_every_version_is_measured_on_all_clients_in_the_state_it_left_them_in(
    reference: dict[int, Mapping[str, float]],
) -> None:
    assert sorted(reference) == [0, 1, 2, 3, 4]
    for version, values in reference.items():
        assert values["personalised_clients"] == 4, "all of them, not only the cohort"
        # Three clients trained in every round, and each training advances a state once.
        assert values["client_sum_trainings"] == 3 * version
        assert 0 < values["personalised_accuracy"] < 1
        assert values["personalised_accuracy_std"] > 0


@pytest.mark.parametrize(
    ("place", "when", "count"),
    [
        ("worker.training.process:ProcessTrainer.evaluate_clients", "before", 2),
        ("worker.training.process:ProcessTrainer.evaluate_clients", "after", 3),
        ("worker.store.sqlite:SqliteStore.promote", "before", 2),
        ("worker.store.sqlite:SqliteStore.keep_fold", "after", 2),
    ],
)
def test_a_worker_that_dies_and_comes_back_changes_no_measure(
    tmp_path: Path, reference: dict[int, Mapping[str, float]], place: str, when: str, count: int
) -> None:
    with Federation(tmp_path, **SETTINGS) as federation:
        coordinator = federation.start_coordinator()
        doomed = federation.start_worker("worker-a", GROUPS["worker-a"], fault=[place, when, str(count)])
        federation.start_worker("worker-b", GROUPS["worker-b"])
        federation.until(lambda: not doomed.running, f"the worker dies {when} {place}")
        federation.start_worker("worker-a", GROUPS["worker-a"])
        assert federation.finish() == 0
        measured = evaluations(federation)
        assert sorted(measured) == sorted(reference)
        for version, values in measured.items():
            assert values == pytest.approx(reference[version]), version
        assert not coordinator.events("client_evaluation_incomplete")


def test_a_coordinator_that_dies_measures_its_last_version_again(
    tmp_path: Path, reference: dict[int, Mapping[str, float]]
) -> None:
    place = "coordinator.evaluation.records:EvaluationRecords.add"
    with Federation(tmp_path, **SETTINGS) as federation:
        doomed = federation.start_coordinator(fault=[place, "before", "5"])
        for name, clients in GROUPS.items():
            federation.start_worker(name, clients)
        federation.until(lambda: not doomed.running, "the coordinator dies before the last record")
        assert 4 not in evaluations(federation)
        federation.start_coordinator()
        assert federation.finish() == 0
        assert evaluations(federation)[4] == pytest.approx(reference[4])


def test_an_evaluator_and_the_clients_workers_write_into_one_record(
    tmp_path: Path, reference: dict[int, Mapping[str, float]]
) -> None:
    with Federation(tmp_path, **SETTINGS) as federation:
        coordinator = federation.start_coordinator()
        federation.start_worker("evaluator", [], config={"data.evaluates": True})
        for name, clients in GROUPS.items():
            federation.start_worker(name, clients)
        assert federation.finish() == 0
        last = evaluations(federation)[4]
        assert {"synthetic_accuracy", "parameter_norm"} <= set(last)
        assert last == pytest.approx({**last, **reference[4]})
        told = {name for event in coordinator.events("evaluated") for name in event}
        assert {"personalised_accuracy", "synthetic_accuracy"} <= told


def test_a_worker_that_never_comes_back_does_not_keep_the_run_from_ending(tmp_path: Path) -> None:
    settings = {**SETTINGS, "evaluation.every": 4, "evaluation.wait_seconds": 1.0}
    with Federation(tmp_path, **settings) as federation:
        coordinator = federation.start_coordinator()
        # Every round includes one of its clients at least; the fourth promotion is that of the last version.
        place = ["worker.store.sqlite:SqliteStore.promote", "after", "4"]
        federation.start_worker("worker-a", GROUPS["worker-a"], fault=place)
        federation.start_worker("worker-b", GROUPS["worker-b"])
        assert federation.finish() == 0
        assert evaluations(federation)[4]["personalised_clients"] == 1
        assert coordinator.events("client_evaluation_incomplete")[-1]["missing"] == 3
