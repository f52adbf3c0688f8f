"""The synthetic method: deterministic, cheap, and sensitive to everything a client receives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ssd.method.protocol import ClientResult, ClientTask, EvaluationTask, Method
from ssd.method.registry import load
from ssd.methods.synthetic.method import FAILURES, SyntheticFailure
from ssd.scaling import assign
from ssd.updates.codec import Encoding, NotFinite
from ssd.updates.declaration import Declaration
from ssd.updates.fold import Fold, FoldPlan, RefusalReason, UpdateRefused, check_update, encode_update

SCALING = {"dimension": 64, "alpha": 10.0}


def method(**config: object) -> Method:
    return load("synthetic", {"parameters": 70_000, **config})


def vector(index: int) -> Any:
    return assign(index, dimension=64, expected_clients=4, block=None, allocation="auto", alpha=10.0, seed=1)


def task(which: Method, **changes: object) -> ClientTask:
    plain = ClientTask(run_seed=1, round=1, rounds=3, client_id="client-000", base=which.initial(5, None))
    return replace(plain, **changes)  # type: ignore[arg-type]  # field names checked by replace itself


def quiet(step: int, steps: int, losses: Mapping[str, float]) -> None:
    del step, steps, losses


def train(which: Method, **changes: object) -> ClientResult:
    return which.train(task(which, **changes), None, quiet)


def plan_of(which: Method) -> FoldPlan:
    return FoldPlan.create(which.declare(), Encoding.FLOAT16, 100, 64)


def test_equal_tasks_give_equal_bits_on_another_host() -> None:
    first, second = train(method()), train(load("synthetic", method().declare().config))
    assert first.delta.tobytes() == second.delta.tobytes()
    assert first.weight == second.weight
    assert first.statistics == second.statistics
    assert {k: v.tobytes() for k, v in first.state.items()} == {
        k: v.tobytes() for k, v in second.state.items()
    }


def test_everything_a_client_receives_changes_its_update() -> None:
    which = method(scaling=SCALING, artefacts={"basis": [4, 4]})
    basis = which.artefacts(3)["basis"]
    given: dict[str, Any] = {"scaling": vector(0), "artefacts": {"basis": basis}, "values": {"lr": 0.1}}
    reference = train(which, **given)
    base = which.initial(5, None)
    base += np.float32(1e-3)
    variants: list[dict[str, Any]] = [
        {"run_seed": 2},
        {"round": 2},
        {"client_id": "client-001"},
        {"base": base},
        {"scaling": vector(1)},
        {"artefacts": {"basis": basis + 1}},
        {"values": {"lr": 0.2}},
        {"state": reference.state},
    ]
    deltas = [reference.delta.tobytes()]
    deltas += [train(which, **{**given, **variant}).delta.tobytes() for variant in variants]
    assert len(set(deltas)) == len(deltas)


def test_a_state_that_advances_twice_shows() -> None:
    which = method()
    once = train(which).state
    twice = train(which, state=once).state
    assert (
        train(which, round=2, state=once).delta.tobytes()
        != train(which, round=2, state=twice).delta.tobytes()
    )
    assert [int(state["counter"][0]) for state in (once, twice)] == [1, 2]  # type: ignore[call-overload]
    # The same training again, from the same state, is a retry and changes nothing.
    assert train(which).state["chain"].tobytes() == once["chain"].tobytes()


def test_state_can_be_switched_off() -> None:
    which = method(state=False)
    assert not which.declare().persists_client_state
    assert train(which).state == {}
    assert method().declare().persists_client_state


def test_updates_are_worth_summing_exactly() -> None:
    delta = train(method()).delta
    assert (delta != 0).all()
    magnitudes = np.abs(delta)
    assert magnitudes.max() / np.median(magnitudes) > 10
    assert (delta > 0).mean() == pytest.approx(0.5, abs=0.05)
    assert np.unique(delta).size > 0.9 * delta.size
    total_one = total_two = np.zeros(delta.size, np.float32)
    deltas = [train(method(), client_id=f"client-{i:03}").delta for i in range(4)]
    for one, two in zip(deltas, reversed(deltas), strict=True):
        total_one, total_two = total_one + one, total_two + two
    assert (total_one != total_two).mean() > 0.05, "a float fold would show"


def test_no_two_coordinates_follow_each_other_from_tile_to_tile() -> None:
    delta = train(method(parameters=400_000)).delta
    tiles = [delta[start : start + 65521] for start in range(0, 400_000 - 65521, 65521)]
    assert all(abs(float(np.corrcoef(one, two)[0, 1])) < 0.1 for one, two in pairwise(tiles))


def test_three_rounds_run_through_plan_fold_and_version() -> None:
    which = method(scaling=SCALING)
    plan = plan_of(which)
    clients = [f"client-{i:03}" for i in range(5)]
    weights = set()
    state: dict[str, Mapping[str, NDArray[np.generic]]] = {client: {} for client in clients}
    for now in (1, 2, 3):
        fold = Fold(plan)
        for index, client in enumerate(clients):
            result = train(which, round=now, client_id=client, scaling=vector(index), state=state[client])
            body = encode_update(plan, result.delta, result.statistics)
            check_update(plan, body, result.weight)
            fold.add_update(body, result.weight)
            state[client] = result.state
            weights.add(result.weight)
        opened = fold.open()
        assert np.isfinite(opened.delta).all()
        assert opened.statistics["batches"] == opened.weight
    assert len(weights) == 5
    assert all(1 <= weight <= 64 for weight in weights)


@pytest.mark.parametrize("failure", FAILURES)
def test_failures_on_demand_are_caught_where_they_should_be(failure: str) -> None:
    which = method(fail_clients={"client-000": failure})
    plan = plan_of(which)
    assert train(which, client_id="client-001").weight >= 1
    if failure == "raise":
        with pytest.raises(SyntheticFailure):
            train(which)
        return
    result = train(which)
    if failure == "nan":
        with pytest.raises(NotFinite):
            encode_update(plan, result.delta, result.statistics)
        return
    expected = {
        "over_bound": RefusalReason.OVER_BOUND,
        "over_norm": RefusalReason.OVER_NORM,
        "huge_weight": RefusalReason.WEIGHT_OUT_OF_RANGE,
        "bad_statistic": RefusalReason.STATISTIC_OUT_OF_RANGE,
    }
    with pytest.raises(UpdateRefused) as caught:
        check_update(plan, encode_update(plan, result.delta, result.statistics), result.weight)
    assert caught.value.reason is expected[failure]


def test_failures_can_be_limited_to_rounds() -> None:
    which = method(fail_clients={"client-000": "raise"}, fail_rounds=[2])
    train(which)
    with pytest.raises(SyntheticFailure):
        train(which, round=2)


def test_progress_is_reported_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    which = method(train_seconds=0.01)
    which.train(task(which), None, lambda step, steps, losses: seen.append((step, steps)))
    assert seen[0][0] == 1
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize("parameters", [16, 17, 100, 4096, 70_001])
def test_the_declaration_has_the_size_asked_for(parameters: int) -> None:
    declaration = method(parameters=parameters).declare()
    assert declaration.spec.size == parameters
    assert list(declaration.spec.groups) == ["encoder", "buffers"]
    assert not declaration.needs_images
    assert Declaration.from_json(declaration.to_json()) == declaration
    assert load("synthetic", declaration.config).declare().digest == declaration.digest


def test_tensors_can_be_named() -> None:
    which = method(tensors={"stem.weight": [4, 3], "head.bias": []})
    names = [tensor.name for tensor in which.declare().spec.tensors]
    assert names == ["stem.weight", "head.bias", "norm.running_mean", "norm.running_var"]
    exported = which.export(which.initial(1, None))
    assert exported["stem.weight"].shape == (4, 3)
    assert exported["head.bias"].shape == ()


def test_version_zero_has_no_negative_variance() -> None:
    which = method()
    start = which.initial(1, None)
    assert (start[-64:] >= 0).all()
    assert (start[:-64] < 0).any()
    assert (which.initial(2, None) != start).any()
    with pytest.raises(ValueError):
        which.initial(1, Path("encoder.safetensors"))


def test_evaluation_gives_finite_scalars() -> None:
    which = method()
    measured = which.evaluate(EvaluationTask(run_seed=1, version=3, vector=which.initial(1, None)), None)
    assert measured
    assert all(isinstance(value, float) and np.isfinite(value) for value in measured.values())


def test_a_task_that_does_not_fit_the_declaration_is_refused() -> None:
    for which, changes in [
        (method(scaling=SCALING), {}),
        (method(), {"scaling": vector(0)}),
        (method(artefacts={"basis": [2]}), {}),
    ]:
        with pytest.raises(ValueError):
            train(which, **changes)


@pytest.mark.parametrize(
    "config",
    [
        {"unknown": 1},
        {"parameters": 15},
        {"scale": 0.0},
        {"scale": float("nan")},
        {"train_seconds": -1.0},
        {"max_weight": 0},
        {"fail_clients": {"client-000": "explode"}},
    ],
)
def test_a_wrong_configuration_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        method(**config)
