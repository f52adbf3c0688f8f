"""Hard separation: z is pulled to its normalised projection on the client's own dimensions."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from ssd.losses.dimension_scaled import (
    DimensionScaledOptions,
    DimensionScaling,
    dimension_scaled,
    scaled_target,
)
from ssd.scaling import ScalingVector

N, D = 6, 5
OWN = (1, 4)
HARD = DimensionScaledOptions(separation="hard")
ALL = [
    DimensionScaledOptions(separation="hard", normalise_input=a, normalise_target=b, reduction=c)
    for a, b, c in product((True, False), (True, False), ("frobenius", "mean_square"))
]


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scaling(rotated: bool, alpha: float = 10.0) -> DimensionScaling:
    basis = torch.linalg.qr(random(D, D, seed=5))[0] if rotated else None
    return DimensionScaling.create(ScalingVector(D, OWN, alpha), basis, dtype=torch.float64)


def by_hand(z: np.ndarray, columns: np.ndarray, options: DimensionScaledOptions) -> float:
    total = 0.0
    for raw in z:
        row = raw / math.sqrt(float(raw @ raw)) if options.normalise_input else raw
        target = sum((float(row @ column) * column for column in columns.T), np.zeros(D))
        if options.normalise_target:
            target = target / math.sqrt(float(target @ target))
        total += float((row - target) @ (row - target))
    return math.sqrt(total) / len(z) if options.reduction == "frobenius" else total / len(z)


@pytest.mark.parametrize("rotated", [True, False])
@pytest.mark.parametrize("options", ALL, ids=str)
def test_hard_separation_equals_its_formula_in_every_form(
    options: DimensionScaledOptions, rotated: bool
) -> None:
    z, frame = random(N, D, seed=1), scaling(rotated)
    columns = np.eye(D)[:, list(OWN)] if frame.columns is None else frame.columns.numpy()
    value = float(dimension_scaled(z, frame, options))
    assert value == pytest.approx(by_hand(z.numpy(), columns, options), abs=1e-9)


@pytest.mark.parametrize("rotated", [True, False])
def test_the_projection_is_orthogonal_and_leaves_its_own_subspace_alone(rotated: bool) -> None:
    z, frame = random(N, D, seed=2), scaling(rotated)
    projected = frame.project(z)
    assert torch.allclose(frame.project(projected), projected, atol=1e-12)
    assert torch.allclose((projected * (z - projected)).sum(dim=1), torch.zeros(N, dtype=torch.float64))
    inside = normalize(projected, dim=1)
    assert float(dimension_scaled(inside, frame, HARD)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("rotated", [True, False])
def test_the_hard_target_is_where_the_soft_one_goes_as_alpha_grows_and_ignores_alpha(rotated: bool) -> None:
    z = normalize(random(N, D, seed=3), dim=1)
    hard = scaled_target(z, scaling(rotated), HARD)
    distances = [
        float((scaled_target(z, scaling(rotated, alpha), replace(HARD, separation="soft")) - hard).norm())
        for alpha in (1.0, 10.0, 100.0, 1e6)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-5
    assert torch.equal(scaled_target(z, scaling(rotated, 3.0), HARD), hard)


@pytest.mark.parametrize("rotated", [True, False])
@pytest.mark.parametrize("options", ALL, ids=str)
def test_gradient_is_that_of_the_formula_with_its_target_held_fixed(
    options: DimensionScaledOptions, rotated: bool
) -> None:
    z, frame = random(N, D, seed=4).requires_grad_(), scaling(rotated)
    source = normalize(z, dim=1) if options.normalise_input else z
    fixed = scaled_target(source, frame, options).detach()

    def with_fixed_target(values: torch.Tensor) -> torch.Tensor:
        values = normalize(values, dim=1) if options.normalise_input else values
        square = (values - fixed).square().sum()
        return square.sqrt() / N if options.reduction == "frobenius" else square / N

    assert torch.autograd.gradcheck(with_fixed_target, (z,))
    (ours,) = torch.autograd.grad(dimension_scaled(z, frame, options), z)
    (reference,) = torch.autograd.grad(with_fixed_target(z), z)
    assert torch.allclose(ours, reference, atol=1e-12)


def test_no_gradient_flows_through_the_hard_target_unless_asked() -> None:
    z, frame = random(N, D, seed=6).requires_grad_(), scaling(True)
    open_ = replace(HARD, stop_gradient=False)
    assert not scaled_target(z, frame, HARD).requires_grad
    assert scaled_target(z, frame, open_).requires_grad
    assert torch.autograd.gradcheck(lambda v: dimension_scaled(v, frame, open_), (z,))


def test_an_embedding_without_a_part_in_the_subspace_gives_a_finite_loss_and_gradient() -> None:
    z = torch.zeros(N, D, dtype=torch.float64)
    z[:, 0] = 1.0
    z.requires_grad_()
    value = dimension_scaled(z, scaling(False), HARD)
    value.backward()
    assert math.isfinite(value.item())
    assert z.grad is not None
    assert bool(torch.isfinite(z.grad).all())
