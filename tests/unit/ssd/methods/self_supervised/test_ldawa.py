"""L-DAWA: the server hook against its formula in plain loops, and what must not change its result."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rounds.reductions import Vector, reduction
from ssd.method.protocol import Reduction, ServerHook
from ssd.methods.self_supervised import fed_align_uniform, ldawa
from ssd.methods.server_steps.angular import AngularMean, angular_mean
from ssd.updates.declaration import Declaration, Reducer
from ssd.updates.spec import Kind, ParameterSpec
from training.training_samples import SMALL, train

SPEC = ParameterSpec.build(
    [
        ("encoder.weight", (3, 2), "encoder", Kind.PARAMETER),
        ("encoder.bias", (3,), "encoder", Kind.PARAMETER),
        ("encoder.scale", (), "encoder", Kind.PARAMETER),
        ("projector.weight", (2, 2), "projector", Kind.PARAMETER),
        ("norm.running_var", (2,), "buffers", Kind.VARIANCE),
    ]
)
GROUPS = ["encoder", "projector"]
SCALES = [("layer", False), ("layer", True), ("model", False), ("model", True)]


def vector(seed: int, scale: float = 1.0) -> Vector:
    return (scale * np.random.default_rng(seed).standard_normal(SPEC.size)).astype(np.float32)


def cohort(count: int, scale: float = 0.7) -> dict[str, tuple[int, Vector]]:
    return {f"client-{i:03}": (i + 1, vector(10 + i, scale)) for i in range(count)}


def run(made: Reduction, scope: str = "layer", normalise: bool = False) -> AngularMean:
    return angular_mean(made, SPEC, GROUPS, scope=scope, normalise=normalise)  # type: ignore[arg-type]


def cosine(a: list[float], b: list[float]) -> float:
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return min(1.0, product / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b)))


@pytest.mark.parametrize(("scope", "normalise"), SCALES)
def test_the_hook_equals_the_formula_in_plain_loops(scope: str, normalise: bool) -> None:
    base, clients = vector(0), cohort(4)
    made = run(reduction(SPEC, base, clients), scope, normalise)
    tensors = [tensor for tensor in SPEC.tensors if tensor.group != "buffers"]
    shaped = [i for tensor in tensors if tensor.shape for i in range(SPEC.size)[tensor.where]]
    for tensor in tensors:
        indices = range(SPEC.size)[tensor.where]
        over = list(indices) if scope == "layer" else shaped
        scalar = scope == "layer" and not tensor.shape
        deltas = [
            1.0
            if scalar
            else cosine([float(base[i]) + float(d[i]) for i in over], [float(base[i]) for i in over])
            for _, d in clients.values()
        ]
        divisor = sum(deltas) if normalise else len(clients)
        if normalise and divisor <= 0:
            deltas, divisor = [1.0] * len(clients), len(clients)
        for i in indices:
            new = (
                sum(
                    c * (float(base[i]) + float(d[i]))
                    for c, (_, d) in zip(deltas, clients.values(), strict=True)
                )
                / divisor
            )
            assert float(made.delta[i]) == pytest.approx(new - float(base[i]), abs=1e-5), (tensor.name, i)


def test_buffers_keep_their_plain_mean_and_data_sizes_do_not_count() -> None:
    base, clients = vector(0), cohort(3)
    made = run(reduction(SPEC, base, clients))
    where = SPEC.groups["buffers"]
    mean = np.mean([delta[where].astype(np.float64) for _, delta in clients.values()], axis=0)
    assert np.allclose(made.delta[where], mean, atol=1e-6)
    heavier = {name: (100 * weight**3, delta) for name, (weight, delta) in clients.items()}
    assert np.array_equal(run(reduction(SPEC, base, heavier)).delta, made.delta)


def test_a_layer_that_did_not_turn_is_averaged_and_one_that_turned_shrinks() -> None:
    base = vector(0)
    stretched = run(reduction(SPEC, base, {"a": (1, 0.5 * base), "b": (1, 1.5 * base)}))
    parameters = slice(0, SPEC.groups["buffers"].start)
    assert np.allclose(stretched.delta[parameters], base[parameters], atol=1e-5)
    turned = run(reduction(SPEC, base, cohort(4, 3.0)))
    plain = run(reduction(SPEC, base, cohort(4, 3.0)), normalise=True)
    weight = SPEC.tensors[0].where
    lengths = [np.linalg.norm(base[weight] + made.delta[weight]) for made in (turned, plain)]
    assert lengths[0] < lengths[1]
    assert turned.least_cosine <= turned.mean_cosine < 1.0


def test_a_bias_that_starts_at_zero_has_no_angle_and_is_averaged() -> None:
    base, clients = vector(0).copy(), cohort(3)
    bias = SPEC.tensors[1].where
    base[bias] = 0.0
    made = run(reduction(SPEC, base, clients))
    assert np.isfinite(made.delta).all()
    mean = np.mean([delta[bias].astype(np.float64) for _, delta in clients.values()], axis=0)
    assert np.allclose(made.delta[bias], mean, atol=1e-6)


@pytest.mark.parametrize(("scope", "normalise"), SCALES)
def test_one_clients_layers_shrink_by_their_cosine_or_not_at_all(scope: str, normalise: bool) -> None:
    base = np.abs(vector(0))  # no angle above 90 degrees, so that every cosine is positive
    delta = np.abs(vector(1))
    made = run(reduction(SPEC, base.copy(), {"a": (1, delta)}), scope, normalise)
    weight = SPEC.tensors[0].where
    ratios = (base[weight] + made.delta[weight]) / (base[weight] + delta[weight])
    expected = 1.0 if normalise else made.least_cosine if scope == "model" else None
    if expected is None:
        expected = cosine([float(v) for v in base[weight] + delta[weight]], [float(v) for v in base[weight]])
    assert ratios == pytest.approx(np.full(ratios.size, expected), rel=1e-5)
    assert expected <= 1.0


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(4)), st.sampled_from(SCALES))
def test_who_sent_which_update_does_not_matter(order: list[int], form: tuple[str, bool]) -> None:
    base, clients = vector(0), cohort(4)
    values = list(clients.values())
    swapped = {name: values[place] for name, place in zip(clients, order, strict=True)}
    first, second = (run(reduction(SPEC, base, each), *form) for each in (clients, swapped))
    parameters = slice(0, SPEC.groups["buffers"].start)
    assert np.allclose(first.delta[parameters], second.delta[parameters], atol=1e-6)
    again = run(reduction(SPEC, base, clients), *form)
    assert np.array_equal(again.delta, first.delta)


def test_the_method_collects_its_parameters_and_hooks_them() -> None:
    method = ldawa.create(SMALL)
    declaration = method.declare()
    assert isinstance(method, ServerHook)
    assert declaration.server_hook
    assert {g.name: g.collect for g in declaration.groups} == {
        "encoder": True,
        "projector": True,
        "buffers": False,
    }
    assert declaration.group("buffers").reducer is Reducer.PLAIN_MEAN
    assert Declaration.from_json(declaration.to_json()).digest == declaration.digest
    base = method.initial(0, None)
    clients = {
        name: (3, train(method, client_id=name).delta) for name in ("client-000", "client-001", "client-002")
    }
    made = method.after_reduce(reduction(declaration.spec, base, clients))
    assert made.delta is not None
    assert made.delta.dtype == np.float32
    assert np.isfinite(made.delta).all()
    assert 0.0 < made.metrics["angular_least"] <= made.metrics["angular_mean"] <= 1.0
    assert not np.array_equal(made.delta, reduction(declaration.spec, base, clients).delta)


def test_on_the_client_it_is_fed_align_uniform_bit_for_bit() -> None:
    assert np.array_equal(train(ldawa.create(SMALL)).delta, train(fed_align_uniform.create(SMALL)).delta)
