"""FedDecorr: the penalty against its definition, and the method built on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssd.losses.decorrelation import DecorrelationOptions, decorrelation
from ssd.methods.self_supervised import fed_align_uniform, feddecorr
from ssd.methods.self_supervised.feddecorr import Decorrelation, FedDecorrConfig
from ssd.methods.self_supervised.terms import Step
from ssd.settings import SettingsError
from training.training_samples import SMALL, digits, train

N, D = 9, 4
RELEASED, CORRELATION = DecorrelationOptions(), DecorrelationOptions(form="correlation")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_penalty_is_the_mean_squared_correlation_of_different_dimensions() -> None:
    x = random(N, D)
    correlations = np.corrcoef(x.numpy(), rowvar=False)
    pairs = [correlations[i, j] ** 2 for i in range(D) for j in range(D) if i != j]
    assert float(decorrelation(x, CORRELATION)) == pytest.approx(np.mean(pairs), rel=1e-6)
    factor = (N - 1) ** 2 / N
    assert float(decorrelation(x, RELEASED)) == pytest.approx(factor * np.mean(pairs), rel=1e-6)


@pytest.mark.parametrize("options", [RELEASED, CORRELATION], ids=str)
def test_the_penalty_does_not_see_shift_or_scale_of_a_dimension(options: DecorrelationOptions) -> None:
    x = random(N, D, seed=1)
    moved = x * torch.tensor([1.0, -3.0, 0.5, 20.0]) + torch.tensor([0.0, 5.0, -1.0, 2.0])
    assert float(decorrelation(moved, options)) == pytest.approx(float(decorrelation(x, options)), rel=1e-6)


def test_copies_are_fully_correlated_and_orthogonal_contrasts_not_at_all() -> None:
    column = random(N, 1, seed=2)
    assert float(decorrelation(column.repeat(1, D), CORRELATION)) == pytest.approx(1.0, rel=1e-6)
    contrasts = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    assert float(decorrelation(contrasts, CORRELATION)) == pytest.approx(0.0, abs=1e-12)


def test_a_dead_dimension_adds_nothing_and_no_nan() -> None:
    x = torch.cat([random(N, 2, seed=3), torch.zeros(N, 1, dtype=torch.float64)], dim=1).requires_grad_()
    value = decorrelation(x, CORRELATION)
    value.backward()
    alive = float(decorrelation(x.detach()[:, :2], CORRELATION))
    assert value.item() == pytest.approx(alive / 3)
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


def test_gradcheck_of_the_penalty() -> None:
    for options in (RELEASED, CORRELATION):
        x = random(N, D, seed=4).requires_grad_()
        assert torch.autograd.gradcheck(lambda v, o=options: decorrelation(v, o), (x,))


@pytest.mark.parametrize("shape", [(1, 4), (4, 1)])
def test_without_two_rows_and_two_dimensions_there_is_no_correlation(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least two"):
        decorrelation(random(*shape), RELEASED)


@pytest.mark.parametrize(("features", "place"), [("z", 1), ("h", 0)])
def test_the_term_averages_over_the_views_of_the_features_it_is_told(features: str, place: int) -> None:
    pairs = [(random(N, D, seed=5 + i), random(N, D, seed=7 + i)) for i in range(2)]
    step = Step(views=torch.zeros(2 * N), representations=pairs[0], embeddings=pairs[1])
    config = FedDecorrConfig(features=features)  # type: ignore[arg-type]  # parametrised literal
    expected = np.mean([float(decorrelation(view, RELEASED)) for view in pairs[place]])
    assert float(Decorrelation(config).parts(step)["decorrelation"]) == pytest.approx(expected)


def test_without_its_coefficient_feddecorr_is_fed_align_uniform_bit_for_bit() -> None:
    bare, base = train(feddecorr.create({**SMALL, "coefficient": 0})), train(fed_align_uniform.create(SMALL))
    assert np.array_equal(bare.delta, base.delta)
    assert bare.statistics["decorrelation_sum"] > 0


@pytest.mark.parametrize("features", ["z", "h"])
def test_training_with_the_penalty_lowers_it(features: str) -> None:
    config = {**SMALL, "local_epochs": 8, "features": features}
    sums = [
        train(feddecorr.create({**config, "coefficient": coefficient}), digits(0, 96)).statistics
        for coefficient in (0.0, 0.5)
    ]
    assert sums[1]["decorrelation_sum"] < 0.8 * sums[0]["decorrelation_sum"]


def test_the_reported_loss_is_the_weighted_sum_of_its_parts() -> None:
    sums = train(feddecorr.create({**SMALL, "coefficient": 0.3})).statistics
    parts = sums["alignment_sum"] + sums["uniformity_sum"] + 0.3 * sums["decorrelation_sum"]
    assert float(sums["loss_sum"]) == pytest.approx(float(parts), rel=1e-5)


def test_settings_are_checked_and_its_base_has_none_of_them() -> None:
    assert feddecorr.create(SMALL).declare().config["coefficient"] == 0.01
    with pytest.raises(SettingsError, match="features"):
        feddecorr.create({**SMALL, "features": "x"})
    with pytest.raises(SettingsError, match="coefficient"):
        fed_align_uniform.create({**SMALL, "coefficient": 0.1})
    assert replace(FedDecorrConfig(), coefficient=0.1).features == "z"
