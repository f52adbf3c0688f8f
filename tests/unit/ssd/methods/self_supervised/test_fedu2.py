"""FedU2: the regulariser against its definition point by point, and the two halves of the method apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from rounds.reductions import reduction
from ssd.losses.flexible_uniform import FlexibleUniformOptions, flexible_uniform
from ssd.methods.self_supervised import fed_align_uniform, fedu2
from ssd.methods.self_supervised.fedu2 import FlexibleUniform, FurOptions
from ssd.methods.self_supervised.terms import Step
from ssd.settings import SettingsError
from training.training_samples import SMALL, train

N, D, P = 7, 5, 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def logarithm(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The tangent vector at x that points along the great circle to u, as long as the arc."""
    flat = u - (x @ u) * x
    return math.acos(float(x @ u)) * flat / math.sqrt(float(flat @ flat))


def by_hand(z: np.ndarray, options: FlexibleUniformOptions, seed: int) -> float:
    draws = generator(seed)
    points = len(z) if options.tangent_points is None else options.tangent_points
    tangents, samples, directions = (
        torch.randn(*shape, generator=draws).to(torch.float64).numpy()
        for shape in ((points, D), (len(z), D), (points, options.projections, D))
    )
    z, tangents, samples = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (z, tangents, samples)
    )
    total = []
    for x, each in zip(tangents, directions, strict=True):
        distances = []
        for p in each:
            if options.form == "mean":
                p = p / np.linalg.norm(p)  # noqa: PLW2901  # the unit direction from here on
            ours = sorted(float(p @ logarithm(x, u)) for u in z)
            theirs = sorted(float(p @ logarithm(x, u)) for u in samples)
            distances.append(np.mean([(a - b) ** 2 for a, b in zip(ours, theirs, strict=True)]))
        total.append(np.mean(distances))
    return float(np.mean(total)) if options.form == "mean" else float(np.sum(total)) / 6


FORMS = [
    FlexibleUniformOptions(projections=P),
    FlexibleUniformOptions(projections=P, form="mean"),
    FlexibleUniformOptions(projections=P, form="mean", tangent_points=2),
]


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_the_regulariser_equals_its_definition_point_by_point(options: FlexibleUniformOptions) -> None:
    z = random(N, D, seed=1)
    expected = by_hand(z.numpy(), options, seed=3)
    assert float(flexible_uniform(z, options, generator(3))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_gradcheck_of_the_regulariser(options: FlexibleUniformOptions) -> None:
    z = random(N, D, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: flexible_uniform(v, options, generator(4)), (z,))


def test_uniform_rows_cost_least_and_a_collapsed_batch_most() -> None:
    options = FlexibleUniformOptions(form="mean")
    uniform = normalize(random(200, 8, seed=5), dim=1)
    cap = normalize(uniform + 1.5, dim=1)
    point = normalize(uniform * 1e-3 + 1.0, dim=1)
    values = [float(flexible_uniform(rows, options, generator(6))) for rows in (uniform, cap, point)]
    assert values == sorted(values)
    assert values[0] < 0.1 * values[1]


def test_only_directions_of_embeddings_matter_and_edges_stay_finite() -> None:
    z = random(N, D, seed=7)
    options = FORMS[0]
    value = float(flexible_uniform(z, options, generator(8)))
    assert float(flexible_uniform(9.0 * z, options, generator(8))) == pytest.approx(value)
    first = normalize(torch.randn(N, D, generator=generator(8)).to(torch.float64), dim=1)
    at_the_tangent_points = torch.cat([first[:3], -first[3:]]).requires_grad_()
    edge = flexible_uniform(at_the_tangent_points, options, generator(8))
    edge.backward()
    assert math.isfinite(edge.item())
    assert at_the_tangent_points.grad is not None
    assert bool(torch.isfinite(at_the_tangent_points.grad).all())


@pytest.mark.parametrize(("form", "factor"), [("released", 1.0), ("mean", 0.5)])
def test_the_term_is_summed_over_the_views_as_released_or_averaged(form: str, factor: float) -> None:
    options = FurOptions(form=form, projections=P)  # type: ignore[arg-type]  # parametrised literal
    views = random(N, D, seed=9), random(N, D, seed=10)
    step = Step(views=torch.zeros(2 * N), representations=views, embeddings=views)
    shared = generator(11)
    expected = factor * sum(float(flexible_uniform(view, options, shared)) for view in views)
    assert float(FlexibleUniform(options, generator(11)).parts(step)["fur"]) == pytest.approx(expected)


@pytest.mark.parametrize("wrong", [{"projections": 0}, {"tangent_points": 0}])
def test_numbers_of_draws_are_positive(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FlexibleUniformOptions(**wrong)


def test_without_both_halves_fedu2_is_fed_align_uniform_bit_for_bit() -> None:
    method = fedu2.create({**SMALL, "fur": {"coefficient": 0}, "eua": False})
    declaration = method.declare()
    assert not declaration.server_hook
    assert not declaration.collects
    bare, base = train(method), train(fed_align_uniform.create(SMALL))
    assert np.array_equal(bare.delta, base.delta)
    assert set(bare.statistics) == set(base.statistics)


def test_the_regulariser_alone_changes_the_client_and_not_the_server() -> None:
    method = fedu2.create({**SMALL, "eua": False})
    assert not method.declare().server_hook
    first, again, base = train(method), train(method), train(fed_align_uniform.create(SMALL))
    assert np.array_equal(first.delta, again.delta), "its draws come from the task"
    assert not np.array_equal(first.delta, base.delta)
    sums = first.statistics
    parts = sums["alignment_sum"] + sums["uniformity_sum"] + 0.01 * sums["fur_sum"]
    assert float(sums["loss_sum"]) == pytest.approx(float(parts), rel=1e-5)


def test_the_aggregator_alone_changes_the_server_and_not_the_client() -> None:
    method = fedu2.create({**SMALL, "fur": {"coefficient": 0}})
    declaration = method.declare()
    assert declaration.server_hook
    assert [g.name for g in declaration.groups if g.collect] == ["encoder", "projector"]
    assert np.array_equal(train(method).delta, train(fed_align_uniform.create(SMALL)).delta)
    base = method.initial(0, None)
    clients = {f"client-{i:03}": (i + 1, train(method, client_id=f"client-{i:03}").delta) for i in range(3)}
    cohort = reduction(declaration.spec, base, clients)
    made = method.after_reduce(cohort)
    assert made.delta is not None
    assert 0.0 < made.metrics["eua_agreement"] <= 1.0
    moved = slice(0, declaration.spec.groups["buffers"].start)
    assert np.linalg.norm(made.delta[moved]) == pytest.approx(made.metrics["eua_step"], rel=1e-4)
    assert not np.array_equal(made.delta[moved], cohort.delta[moved])
    assert np.array_equal(made.delta[moved.stop :], cohort.delta[moved.stop :])
    fast = fedu2.create({**SMALL, "fur": {"coefficient": 0}, "server_rate": 8}).after_reduce(cohort)
    assert fast.metrics["eua_step"] == pytest.approx(16 * made.metrics["eua_agreement"])


@pytest.mark.parametrize(
    ("wrong", "named"), [({"server_rate": 0}, "server_rate"), ({"fur": {"projections": 0}}, "projections")]
)
def test_impossible_settings_are_refused(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        fedu2.create({**SMALL, **wrong})
