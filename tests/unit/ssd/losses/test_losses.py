"""The loss terms against re-derivations in plain loops, in float64, and the sizes the paper's figures imply."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from ssd.losses.alignment import AlignmentOptions, alignment
from ssd.losses.dimension_scaled import (
    DimensionScaledOptions,
    DimensionScaling,
    dimension_scaled,
    scaled_target,
)
from ssd.losses.distillation import DistillationOptions, distillation
from ssd.losses.objective import objective
from ssd.losses.presets import OFFICIAL, PAPER, PAPER_LITERAL, SsdLosses
from ssd.losses.uniformity import UniformityOptions, uniformity
from ssd.scaling import ScalingVector

N, D = 7, 5
FRAME = ScalingVector(dimension=D, indices=(0, 3), alpha=10.0)


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthonormal(size: int, seed: int = 5) -> torch.Tensor:
    return torch.linalg.qr(random(size, size, seed=seed))[0]


def unit_rows(rows: np.ndarray) -> np.ndarray:
    return np.array([row / math.sqrt(sum(v * v for v in row)) for row in rows])


def softmax(row: np.ndarray) -> list[float]:
    powers = [math.exp(v - max(row)) for v in row]
    return [p / sum(powers) for p in powers]


def plain_alignment(a: np.ndarray, b: np.ndarray, normalise: bool) -> float:
    if normalise:
        a, b = unit_rows(a), unit_rows(b)
    return sum(sum((x - y) ** 2 for x, y in zip(r, s, strict=True)) for r, s in zip(a, b, strict=True)) / len(
        a
    )


def plain_uniformity(z: np.ndarray, t: float, normalise: bool) -> float:
    z = unit_rows(z) if normalise else z
    kernels = []
    for i in range(len(z)):
        kernels += [
            math.exp(-t * sum((x - y) ** 2 for x, y in zip(z[i], z[j], strict=True)))
            for j in range(i + 1, len(z))
        ]
    return math.log(sum(kernels) / len(kernels))


def plain_dsr(z: np.ndarray, basis: np.ndarray | None, options: DimensionScaledOptions) -> float:
    z = unit_rows(z) if options.normalise_input else z
    d_k = [FRAME.alpha if i in FRAME.indices else 1.0 for i in range(D)]
    q = np.eye(D) if basis is None else basis
    target = z @ q @ np.diag(d_k) @ q.T
    target = unit_rows(target) if options.normalise_target else target
    total = sum((z[i, j] - target[i, j]) ** 2 for i in range(len(z)) for j in range(D))
    return math.sqrt(total) / len(z) if options.reduction == "frobenius" else total / len(z)


def plain_distillation(h: np.ndarray, z: np.ndarray, options: DistillationOptions) -> float:
    if options.normalise:
        h, z = unit_rows(h), unit_rows(z)
    if options.divergence == "mse":
        return sum((x - y) ** 2 for x, y in zip(h.flat, z.flat, strict=True)) / h.size
    p, q = (h, z) if options.divergence == "kl_h_z" else (z, h)
    total = 0.0
    for row_p, row_q in zip(p / options.temperature, q / options.temperature, strict=True):
        total += sum(a * math.log(a / b) for a, b in zip(softmax(row_p), softmax(row_q), strict=True))
    return total / len(h)


ALL_DSR = [
    DimensionScaledOptions(normalise_input=a, normalise_target=b, reduction=c)
    for a, b, c in product((True, False), (True, False), ("frobenius", "mean_square"))
]
ALL_PD = [
    DistillationOptions(divergence=a, temperature=b, normalise=c)
    for a, b, c in product(("kl_z_h", "kl_h_z", "mse"), (0.5, 1.0), (True, False))
]


@pytest.mark.parametrize("normalise", [True, False])
def test_alignment_is_the_mean_squared_distance(normalise: bool) -> None:
    a, b = random(N, D, seed=1), random(N, D, seed=2)
    value = alignment(a, b, AlignmentOptions(normalise=normalise))
    assert float(value) == pytest.approx(plain_alignment(a.numpy(), b.numpy(), normalise), abs=1e-6)


@pytest.mark.parametrize(("t", "normalise"), [(2.0, True), (0.5, True), (2.0, False)])
def test_uniformity_is_the_log_of_the_mean_kernel_over_different_rows(t: float, normalise: bool) -> None:
    z = random(N, D, seed=3)
    value = uniformity(z, UniformityOptions(t=t, normalise=normalise))
    assert float(value) == pytest.approx(plain_uniformity(z.numpy(), t, normalise), abs=1e-6)


def test_uniformity_of_one_row_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        uniformity(random(1, D), UniformityOptions())


@pytest.mark.parametrize("options", ALL_DSR, ids=str)
@pytest.mark.parametrize("rotated", [True, False])
def test_dsr_equals_its_formula_in_every_form(options: DimensionScaledOptions, rotated: bool) -> None:
    z = random(N, D, seed=4, scale=3.0)
    basis = orthonormal(D) if rotated else None
    scaling = DimensionScaling.create(FRAME, basis, dtype=torch.float64)
    expected = plain_dsr(z.numpy(), None if basis is None else basis.numpy(), options)
    assert float(dimension_scaled(z, scaling, options)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("options", ALL_PD, ids=str)
def test_distillation_equals_its_formula_in_every_form(options: DistillationOptions) -> None:
    h, z = random(N, D, seed=6).relu(), random(N, D, seed=7)
    expected = plain_distillation(h.numpy(), z.numpy(), options)
    assert float(distillation(h, z, options)) == pytest.approx(expected, abs=1e-6)


def test_distillation_of_different_lengths_says_what_to_set() -> None:
    with pytest.raises(ValueError, match=r"out_dim.*feature_dim"):
        distillation(random(N, D), random(N, D + 1), DistillationOptions())


def test_the_square_root_in_the_codes_basis_scales_by_w_and_not_by_its_square() -> None:
    basis, z = orthonormal(D), random(N, D, seed=8)
    stored = basis.clone()
    stored[:, list(FRAME.indices)] *= math.sqrt(FRAME.alpha)
    ours = DimensionScaling.create(FRAME, basis, dtype=torch.float64)(z)
    assert torch.allclose(ours, z @ stored @ stored.T, atol=1e-12)


def test_a_basis_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="basis has shape"):
        DimensionScaling.create(FRAME, orthonormal(D + 1))


@pytest.mark.parametrize("rotated", [True, False])
@pytest.mark.parametrize("options", ALL_DSR, ids=str)
def test_gradient_of_dsr_is_that_of_the_formula_with_its_target_held_fixed(
    options: DimensionScaledOptions, rotated: bool
) -> None:
    z = random(N, D, seed=9).requires_grad_()
    scaling = DimensionScaling.create(FRAME, orthonormal(D) if rotated else None, dtype=torch.float64)

    source = torch.nn.functional.normalize(z, dim=1) if options.normalise_input else z
    fixed = scaled_target(source, scaling, options).detach()

    def with_fixed_target(values: torch.Tensor) -> torch.Tensor:
        values = torch.nn.functional.normalize(values, dim=1) if options.normalise_input else values
        difference = values - fixed
        if options.reduction == "frobenius":
            return difference.square().sum().sqrt() / N
        return difference.square().sum() / N

    assert torch.autograd.gradcheck(with_fixed_target, (z,))
    (ours,) = torch.autograd.grad(dimension_scaled(z, scaling, options), z)
    (reference,) = torch.autograd.grad(with_fixed_target(z), z)
    assert torch.allclose(ours, reference, atol=1e-12)


def test_no_gradient_flows_through_the_dsr_target_unless_asked() -> None:
    z = random(N, D, seed=10).requires_grad_()
    scaling = DimensionScaling.create(FRAME, None, dtype=torch.float64)
    stopped, open_ = DimensionScaledOptions(), DimensionScaledOptions(stop_gradient=False)
    assert not scaled_target(z, scaling, stopped).requires_grad
    assert scaled_target(z, scaling, open_).requires_grad
    gradients = [torch.autograd.grad(dimension_scaled(z, scaling, o), z)[0] for o in (stopped, open_)]
    assert not torch.allclose(*gradients)
    assert torch.autograd.gradcheck(lambda v: dimension_scaled(v, scaling, open_), (z,))


@pytest.mark.parametrize("options", ALL_PD, ids=str)
def test_gradcheck_of_distillation(options: DistillationOptions) -> None:
    h, z = random(N, D, seed=11).requires_grad_(), random(N, D, seed=12).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: distillation(a, b, options), (h, z))


@pytest.mark.parametrize(
    ("side", "moves"), [("none", (True, True)), ("h", (False, True)), ("z", (True, False))]
)
def test_distillation_stops_the_gradient_it_is_told_to(side: str, moves: tuple[bool, bool]) -> None:
    h, z = random(N, D, seed=13).requires_grad_(), random(N, D, seed=14).requires_grad_()
    options = DistillationOptions(stop_gradient=side)  # type: ignore[arg-type]  # parametrised literal
    distillation(h, z, options).backward()
    assert (h.grad is not None, z.grad is not None) == moves


def test_gradcheck_of_alignment_and_uniformity() -> None:
    a, b = random(N, D, seed=15).requires_grad_(), random(N, D, seed=16).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: alignment(x, y, AlignmentOptions()), (a, b))
    assert torch.autograd.gradcheck(lambda x: uniformity(x, UniformityOptions()), (a,))


@pytest.mark.parametrize(
    ("losses", "block", "expected"),
    [
        (OFFICIAL, 51, 0.081),
        (OFFICIAL, 10, 0.068),
        (PAPER, 51, 0.85),
        (PAPER, 10, 0.60),
        (PAPER_LITERAL, 51, 8.1),
        (PAPER_LITERAL, 10, 1.6),
    ],
)
def test_dsr_of_random_unit_vectors_has_the_size_of_its_reading(
    losses: SsdLosses, block: int, expected: float
) -> None:
    """512 dimensions, 128 images; only the official form falls in the range of the paper's Fig. 4."""
    z = torch.nn.functional.normalize(random(128, 512, seed=17), dim=1)
    basis = orthonormal(512) if losses is OFFICIAL else None
    values = []
    for start in range(0, 10 * block, block):
        vector = ScalingVector(dimension=512, indices=tuple(range(start, start + block)), alpha=10.0)
        scaling = DimensionScaling.create(vector, basis, dtype=torch.float64)
        values.append(float(dimension_scaled(z, scaling, losses.dsr)))
    assert np.mean(values) == pytest.approx(expected, rel=0.03)


def test_the_official_size_depends_on_the_batch_and_the_papers_does_not() -> None:
    z = torch.nn.functional.normalize(random(256, 64, seed=18), dim=1)
    scaling = DimensionScaling.create(
        ScalingVector(dimension=64, indices=tuple(range(6)), alpha=10.0), None, dtype=torch.float64
    )

    def ratio(options: DimensionScaledOptions) -> float:
        whole = dimension_scaled(z.repeat(4, 1), scaling, options)
        return float(whole / dimension_scaled(z, scaling, options))

    assert ratio(OFFICIAL.dsr) == pytest.approx(0.5)
    assert ratio(PAPER.dsr) == pytest.approx(1.0)


def views(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return random(N, D, seed=seed), random(N, D, seed=seed + 1)


@pytest.mark.parametrize("losses", [OFFICIAL, PAPER, PAPER_LITERAL], ids=["official", "paper", "literal"])
def test_the_objective_is_the_weighted_sum_with_terms_averaged_over_the_views(losses: SsdLosses) -> None:
    losses = replace(losses, beta=0.7, gamma=1.3, delta=0.4)
    h, z = views(20), views(22)
    basis = orthonormal(D)
    scaling = DimensionScaling.create(FRAME, basis, dtype=torch.float64)
    terms = objective(h, z, losses, scaling)
    expected = (
        plain_alignment(z[0].numpy(), z[1].numpy(), True)
        + 0.7 * np.mean([plain_uniformity(v.numpy(), 2.0, True) for v in z])
        + 1.3 * np.mean([plain_dsr(v.numpy(), basis.numpy(), losses.dsr) for v in z])
        + 0.4
        * np.mean(
            [plain_distillation(a.numpy(), b.numpy(), losses.distillation) for a, b in zip(h, z, strict=True)]
        )
    )
    assert float(terms.loss) == pytest.approx(float(expected), abs=1e-6)


def test_terms_without_weight_are_left_out_and_need_no_scaling_vector() -> None:
    base = replace(OFFICIAL, gamma=0.0, delta=0.0)
    terms = objective(views(30), views(32), base, None)
    assert float(terms.dsr) == 0.0
    assert float(terms.distillation) == 0.0
    assert torch.equal(terms.loss, terms.alignment + terms.uniformity)
    with pytest.raises(ValueError, match="scaling vector"):
        objective(views(30), views(32), replace(base, gamma=1.0), None)
