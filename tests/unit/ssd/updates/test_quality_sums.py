"""Representation quality from sums: the algebra, how exact it is, and its way through the fixed-point fold."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rounds.fold_samples import sample_declaration
from ssd.evaluation import quality as exact
from ssd.evaluation.federated_quality import Sums, nothing, sums_of
from ssd.updates.codec import Encoding
from ssd.updates.declaration import Declaration, QualityDeclaration
from ssd.updates.fold import Fold, FoldPlan, check_update, encode_update
from ssd.updates.quality_sums import (
    artefacts,
    frequencies_name,
    name_of,
    random_frequencies,
    read,
    statistics,
)

DIMENSION = 12
QUALITY = QualityDeclaration(features={"h": DIMENSION}, frequencies=256, images=600, min_images=2)
COHORT = 10


def cloud(count: int, seed: int, dimension: int = DIMENSION) -> torch.Tensor:
    """Features with a mean of their client's own, a decaying spectrum and norms around 5."""
    generator = np.random.default_rng(seed)
    spectrum = np.arange(1, dimension + 1) ** -0.5
    values = generator.standard_normal((count, dimension)) + 0.5 * generator.standard_normal(dimension)
    return torch.tensor(5.0 * values * spectrum / np.linalg.norm(spectrum))


@functools.cache
def made(dimension: int, count: int, seed: int = 3) -> dict[str, NDArray[np.float32]]:
    return artefacts(QualityDeclaration(features={"h": dimension}, frequencies=count), seed)


def frequencies_of(quality: QualityDeclaration, seed: int = 3) -> dict[str, NDArray[np.float32]]:
    return made(quality.features["h"], quality.frequencies, seed)


def sums(features: torch.Tensor, seed: int = 0, quality: QualityDeclaration = QUALITY) -> Sums:
    noise = 0.1 * torch.tensor(np.random.default_rng(seed).standard_normal(features.shape))
    frequencies = torch.tensor(frequencies_of(quality)[frequencies_name("h")])
    return sums_of(quality, "h", features, torch.stack([features, features + noise], 1), frequencies)


def total(parts: list[Sums]) -> Sums:
    return {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}


def told(parts: list[Sums], quality: QualityDeclaration = QUALITY) -> dict[str, float]:
    return read(quality, total(parts), frequencies_of(quality), COHORT)


def declared(quality: QualityDeclaration = QUALITY) -> Declaration:
    return replace(sample_declaration(), quality=quality)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=6), st.integers(0, 1000))
def test_what_does_not_know_of_clients_is_the_same_for_every_split(sizes: list[int], seed: int) -> None:
    pooled = cloud(sum(sizes), seed)
    noise = torch.stack([pooled, 1.1 * pooled + 0.1], 1)
    frequencies = torch.tensor(frequencies_of(QUALITY)[frequencies_name("h")])
    edges = np.cumsum([0, *sizes])
    parts = [
        sums_of(QUALITY, "h", pooled[a:b], noise[a:b], frequencies) for a, b in itertools.pairwise(edges)
    ]
    together, apart = sums_of(QUALITY, "h", pooled, noise, frequencies), total(parts)
    for which in ("images", "alignment", "kernel", "mean", "gram"):
        name = name_of("h", which)
        np.testing.assert_allclose(apart[name], together[name], rtol=1e-10, atol=1e-8)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(20, 40), min_size=2, max_size=4), st.integers(0, 1000))
def test_intra_and_inter_make_up_global_by_their_pairs(sizes: list[int], seed: int) -> None:
    values = told([sums(cloud(size, seed + index)) for index, size in enumerate(sizes)])
    count = sum(sizes)
    within, everything = sum(n * n - n for n in sizes), count * count - count
    kernel = {name: math.exp(-values[f"h_uniformity_{name}"]) for name in ("global", "intra", "inter")}
    mixed = within * kernel["intra"] + (everything - within) * kernel["inter"]
    assert kernel["global"] * everything == pytest.approx(mixed, rel=1e-9)


@pytest.mark.parametrize("dimension", [16, 32])
def test_the_figures_are_those_of_the_pooled_features(dimension: int) -> None:
    quality = replace(QUALITY, features={"h": dimension}, frequencies=4096)
    clients = [cloud(200, index, dimension) for index in range(6)]
    values = told([sums(each, index, quality) for index, each in enumerate(clients)], quality)
    owners = [index for index, each in enumerate(clients) for _ in each]
    spread = exact.uniformity(torch.cat(clients), owners)
    assert values["h_uniformity_intra"] == pytest.approx(spread.intra, abs=1e-9)
    assert values["h_uniformity_inter"] == pytest.approx(spread.inter, abs=0.01)
    assert values["h_uniformity_global"] == pytest.approx(spread.overall, abs=0.01)
    rank = exact.effective_rank(torch.cat(clients)).value
    # (effective_rank takes float32 features.)
    assert values["h_effective_rank"] == pytest.approx(rank, rel=1e-5)
    assert (values["h_images"], values["h_clients"]) == (1200, 6)


def test_alignment_is_the_mean_over_all_images() -> None:
    first, second = sums(cloud(30, 1), 1), sums(cloud(70, 2), 2)
    mean = (first[name_of("h", "alignment")] + second[name_of("h", "alignment")]) / 100
    assert told([first, second])["h_alignment"] == pytest.approx(float(mean))


def test_the_control_variates_are_worth_more_than_three_times_the_frequencies() -> None:
    clients = [cloud(100, index, 32) for index in range(5)]
    owners = [index for index, each in enumerate(clients) for _ in each]
    true = exact.uniformity(torch.cat(clients), owners).inter
    quality = replace(QUALITY, features={"h": 32}, frequencies=256)
    errors: dict[str, list[float]] = {"with": [], "without": []}
    for seed in range(12):
        found = frequencies_of(quality, seed)
        frequencies = torch.tensor(found[frequencies_name("h")])
        parts = [sums_of(quality, "h", each, torch.stack([each, each], 1), frequencies) for each in clients]
        cohort = total(parts)
        errors["with"].append(read(quality, cohort, found, COHORT)["h_uniformity_inter"] - true)
        kernel, own = cohort[name_of("h", "kernel")], cohort[name_of("h", "kernel_squared")]
        plain = np.square(kernel).sum() / 256 - own.mean()
        errors["without"].append(-math.log(plain / (500**2 - 5 * 100**2)) - true)
    squares = {label: float(np.mean(np.square(each))) for label, each in errors.items()}
    assert squares["with"] * 3 < squares["without"]


def test_what_is_not_defined_is_left_out() -> None:
    nobody = told([nothing(QUALITY), nothing(QUALITY)])
    assert nobody == {"h_images": 0.0, "h_clients": 0.0}
    alone = told([sums(cloud(50, 1)), nothing(QUALITY)])
    assert alone["h_clients"] == 1
    assert "h_uniformity_inter" not in alone
    assert alone["h_uniformity_global"] == pytest.approx(alone["h_uniformity_intra"], abs=1e-9)


def test_a_client_that_takes_no_part_changes_nothing() -> None:
    parts = [sums(cloud(50, 1), 1), sums(cloud(60, 2), 2)]
    assert told([*parts, nothing(QUALITY)]) == told(parts)


def folded(quality: QualityDeclaration, parts: list[Sums]) -> tuple[FoldPlan, dict[str, NDArray[np.float64]]]:
    plan = FoldPlan.create(declared(quality), Encoding.FLOAT32, COHORT, 100, quality=True)
    fold = Fold(plan)
    own = {"loss_sum": np.zeros(()), "moments": np.zeros((2, 3))}
    for part in parts:
        body = encode_update(plan, np.zeros(plan.size, np.float32), own | part)
        check_update(plan, body, 1)
        fold.add_update(body, 1)
    return plan, dict(fold.open().statistics)


@pytest.mark.parametrize("moments", [False, True])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 30.0])
def test_the_fixed_point_fold_costs_no_digit_that_shows(scale: float, moments: bool) -> None:
    quality = replace(QUALITY, moments=moments)
    parts = [sums(scale * cloud(100, index), index, quality) for index in range(4)]
    _, opened = folded(quality, parts)
    through, direct = read(quality, opened, frequencies_of(quality), COHORT), told(parts, quality)
    assert through.keys() == direct.keys()
    for name, value in direct.items():
        assert through[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("moments", [False, True])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 30.0])
def test_rounding_is_not_taken_for_dimensions_of_a_collapsed_representation(
    scale: float, moments: bool
) -> None:
    quality = replace(QUALITY, features={"h": 64}, frequencies=128, moments=moments)
    basis = np.random.default_rng(4).standard_normal((3, 64))
    clients = [scale * cloud(100, index, 3) @ torch.tensor(basis) for index in range(4)]
    _, opened = folded(quality, [sums(each, 0, quality) for each in clients])
    rank = exact.effective_rank_of_gram(torch.stack([each.T @ each for each in clients]).sum(0))
    measured = read(quality, opened, frequencies_of(quality), COHORT)["h_effective_rank"]
    assert measured == pytest.approx(rank, rel=1e-3)


def test_short_features_keep_the_tail_of_their_rank() -> None:
    quality = replace(QUALITY, features={"h": 64}, frequencies=128)
    spectrum = torch.tensor(np.arange(1, 65) ** -2.0)
    clients = [
        3e-3 * spectrum * torch.tensor(np.random.default_rng(seed).standard_normal((100, 64)))
        for seed in range(4)
    ]
    rank = exact.effective_rank_of_gram(torch.stack([each.T @ each for each in clients]).sum(0))
    measured = {}
    for moments in (False, True):
        made_so = replace(quality, moments=moments)
        _, opened = folded(made_so, [sums(each, 0, made_so) for each in clients])
        measured[moments] = read(made_so, opened, frequencies_of(quality), COHORT)["h_effective_rank"]
    assert measured[False] < 0.9 * rank  # what the sums of runs without moments say
    assert measured[True] == pytest.approx(rank, rel=1e-6)


def test_zero_features_are_counted_in_the_sums() -> None:
    quality = replace(QUALITY, moments=True)
    features = cloud(50, 1)
    features[::5] = 0.0
    parts = [sums_of(quality, "h", features, torch.stack([features, features], 1),
                     torch.tensor(frequencies_of(quality)[frequencies_name("h")]))] * 2  # fmt: skip
    assert told(parts, quality)["h_zero_features"] == 20
    assert "h_zero_features" not in told([sums(features)])


def test_a_round_that_measures_has_its_own_plan() -> None:
    plain = FoldPlan.create(declared(), Encoding.FLOAT32, COHORT, 100)
    measuring = FoldPlan.create(declared(), Encoding.FLOAT32, COHORT, 100, quality=True)
    extra = sum(math.prod(each.shape) for each in statistics(QUALITY))
    assert measuring.update_nbytes == plain.update_nbytes + 8 * extra
    assert measuring.statistics[: len(plain.statistics)] == plain.statistics
    bare = FoldPlan.create(sample_declaration(), Encoding.FLOAT32, COHORT, 100, quality=True)
    assert bare.update_nbytes == plain.update_nbytes


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 90), st.integers(2, 9), st.integers(0, 99))
def test_frequencies_have_the_lengths_of_their_distribution(dimension: int, blocks: int, seed: int) -> None:
    found = random_frequencies(dimension, blocks * dimension, 2.0, seed).astype(np.float64)
    squares = np.square(found).sum(1)
    assert squares.mean() == pytest.approx(4.0 * dimension, rel=0.02 if dimension > 4 else 0.3)
    if dimension > 4:
        assert squares.std() == pytest.approx(4.0 * math.sqrt(2.0 * dimension), rel=0.05)
    block = found[:dimension] @ found[:dimension].T
    np.testing.assert_allclose(block, np.diag(np.diag(block)), atol=1e-4)


def test_frequencies_depend_on_the_seed_alone_and_must_be_enough() -> None:
    assert np.array_equal(random_frequencies(8, 64, 2.0, 1), random_frequencies(8, 64, 2.0, 1))
    assert not np.array_equal(random_frequencies(8, 64, 2.0, 1), random_frequencies(8, 64, 2.0, 2))
    with pytest.raises(ValueError, match="too few for 8 dimensions"):
        random_frequencies(8, 15, 2.0, 1)
