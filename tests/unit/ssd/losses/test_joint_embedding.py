"""NT-Xent, VICReg and Barlow Twins against their papers' formulas written out in loops, gradients included."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from ssd.losses.joint_embedding.barlow_twins import BarlowTwinsOptions, barlow_twins
from ssd.losses.joint_embedding.nt_xent import NtXentOptions, nt_xent
from ssd.losses.joint_embedding.vicreg import VicRegOptions, vicreg

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "nt_xent": partial(nt_xent, options=NtXentOptions(temperature=0.3)),
    "vicreg": partial(vicreg, options=VicRegOptions()),
    "vicreg_paper": partial(vicreg, options=VicRegOptions(form="paper")),
    "barlow_twins": partial(barlow_twins, options=BarlowTwinsOptions()),
}


def views(count: int = 6, size: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(count, size, generator=generator, dtype=torch.float64)
    return first, first + 0.3 * torch.randn(count, size, generator=generator, dtype=torch.float64)


def nt_xent_in_loops(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    rows = [*first, *second]
    count = len(first)

    def similarity(i: int, j: int) -> Tensor:
        return rows[i] @ rows[j] / (rows[i].norm() * rows[j].norm()) / temperature

    losses = []
    for i in range(2 * count):
        partner = (i + count) % (2 * count)
        others = torch.stack([similarity(i, k).exp() for k in range(2 * count) if k != i]).sum()
        losses.append(-(similarity(i, partner).exp() / others).log())
    return torch.stack(losses).mean()


def vicreg_in_loops(first: Tensor, second: Tensor, form: str) -> Tensor:
    count, size = first.shape
    distance = torch.stack([((a - b) ** 2).sum() for a, b in zip(first, second, strict=True)]).sum() / count
    parts = []
    for view in (first, second):
        mean = view.sum(dim=0) / count
        covariance = torch.stack([torch.outer(row - mean, row - mean) for row in view]).sum(dim=0) / (
            count - 1
        )
        hinge = (
            torch.stack([torch.relu(1 - (covariance[j, j] + 1e-4).sqrt()) for j in range(size)]).sum() / size
        )
        squares = [covariance[i, j] ** 2 for i in range(size) for j in range(size) if i != j]
        parts.append((hinge, torch.stack(squares).sum() / size))
    hinges, covariances = parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]
    if form == "released":
        return 25 * distance / size + 25 * hinges / 2 + covariances
    return 25 * distance + 25 * hinges + covariances


def barlow_in_loops(first: Tensor, second: Tensor, redundancy: float, scale: float) -> Tensor:
    count, size = first.shape
    standard = []
    for view in (first, second):
        mean = view.sum(dim=0) / count
        variance = ((view - mean) ** 2).sum(dim=0) / count
        standard.append((view - mean) / (variance + 1e-5).sqrt())
    total = first.new_zeros(())
    for i in range(size):
        for j in range(size):
            correlation = (standard[0][:, i] * standard[1][:, j]).sum() / count
            total = total + ((1 - correlation) ** 2 if i == j else redundancy * correlation**2)
    return scale * total


REFERENCES: dict[str, Loss] = {
    "nt_xent": partial(nt_xent_in_loops, temperature=0.3),
    "vicreg": partial(vicreg_in_loops, form="released"),
    "vicreg_paper": partial(vicreg_in_loops, form="paper"),
    "barlow_twins": partial(barlow_in_loops, redundancy=5e-3, scale=1 / 32),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(6, 4), (2, 3), (9, 2), (5, 12)])
def test_value_and_gradient_are_those_of_the_formula(name: str, shape: tuple[int, int]) -> None:
    results = []
    for loss in (LOSSES[name], REFERENCES[name]):
        pair = [each.requires_grad_() for each in views(*shape)]
        value = loss(*pair)
        value.backward()  # type: ignore[no-untyped-call]
        results.append((value.detach(), *(each.grad for each in pair)))
    for ours, theirs in zip(*results, strict=True):
        assert ours is not None
        assert theirs is not None
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", LOSSES)
def test_the_views_may_change_places(name: str) -> None:
    first, second = views()
    torch.testing.assert_close(LOSSES[name](first, second), LOSSES[name](second, first))


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_images_does_not_matter(name: str) -> None:
    first, second = views()
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    torch.testing.assert_close(LOSSES[name](first, second), LOSSES[name](first[order], second[order]))


def test_values_that_can_be_had_by_hand() -> None:
    apart = torch.eye(2)
    # Two orthogonal images whose views agree: each sees its partner (1) and two strangers (0).
    expected = -math.log(math.e / (math.e + 2))
    assert float(nt_xent(apart, apart, NtXentOptions(temperature=1.0))) == pytest.approx(expected)
    # Uncorrelated dimensions of standard deviation above 1, equal views: nothing to improve.
    square = 3.0 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert float(vicreg(square, square, VicRegOptions())) == pytest.approx(0.0, abs=1e-6)
    assert float(barlow_twins(square, square, BarlowTwinsOptions(scale=1.0))) == pytest.approx(0.0, abs=1e-6)
    # Opposite views: every correlation on the diagonal is -1, so each dimension costs (1 + 1)².
    assert float(barlow_twins(square, -square, BarlowTwinsOptions(scale=1.0))) == pytest.approx(8.0, rel=1e-4)
    # A collapsed batch: VICReg charges the hinge alone, 25 · (1 - sqrt(1e-4)).
    point = torch.ones(4, 3)
    assert float(vicreg(point, point, VicRegOptions())) == pytest.approx(25 * 0.99, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", ["zeros", "one point", "large", "a dead dimension"])
def test_awkward_features_give_finite_values_and_gradients(name: str, kind: str) -> None:
    first, second = (each.float() for each in views())
    if kind == "zeros":
        first, second = torch.zeros_like(first), torch.zeros_like(second)
    elif kind == "one point":
        first, second = torch.ones_like(first), torch.ones_like(second)
    elif kind == "large":
        first, second = 1e4 * first, 1e4 * second
    else:
        first[:, 0] = 0.0
        second[:, 0] = 0.0
    pair = [each.clone().requires_grad_() for each in (first, second)]
    value = LOSSES[name](*pair)
    value.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(value)
    assert all(each.grad is not None and bool(torch.isfinite(each.grad).all()) for each in pair)


@pytest.mark.parametrize("name", LOSSES)
def test_one_image_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="at least two images"):
        LOSSES[name](*views(count=1))


def test_a_temperature_is_positive() -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        NtXentOptions(temperature=0.0)
