"""The exact measures against their definitions, written as plain loops over pairs of Python floats."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from ssd.data.images.source import TensorImages
from ssd.evaluation.quality import alignment, effective_rank, effective_rank_of_gram, shared, uniformity


def cloud(count: int, dimension: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimension, generator=generator) + 0.5


def unit(row: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in row))
    return [value / length for value in row]


def minus_log_mean(values: list[float]) -> float:
    return -math.log(sum(values) / len(values))


def looped(features: Tensor, owners: list[int]) -> tuple[float, float, float]:
    rows = [unit(row) for row in features.tolist()]
    same, different = [], []
    for one, other in combinations(range(len(rows)), 2):
        distance = sum((a - b) ** 2 for a, b in zip(rows[one], rows[other], strict=True))
        (same if owners[one] == owners[other] else different).append(math.exp(-2 * distance))
    return minus_log_mean(same), minus_log_mean(different), minus_log_mean(same + different)


@pytest.mark.parametrize("chunk", [1, 3, 7, 40, 1000])
@pytest.mark.parametrize("clients", [1, 2, 5, 13])
def test_uniformity_equals_the_loop_over_pairs_for_any_block_size(chunk: int, clients: int) -> None:
    features = cloud(40, 6)
    # Not sorted by client, and of different sizes.
    owners = [(index * index) % clients for index in range(40)]
    result = uniformity(features, owners, chunk=chunk)
    if len(set(owners)) == 1:
        assert math.isnan(result.inter)
        assert result.intra == result.overall
    else:
        intra, inter, overall = looped(features, owners)
        assert result.intra == pytest.approx(intra, rel=1e-12)
        assert result.inter == pytest.approx(inter, rel=1e-12)
        assert result.overall == pytest.approx(overall, rel=1e-12)
    assert (result.samples, result.clients) == (40, len(set(owners)))


def test_the_parts_of_uniformity_make_up_the_whole_weighted_by_their_pairs() -> None:
    owners = [0] * 30 + [1] * 20 + [2] * 10
    result = uniformity(cloud(60, 8), owners)
    same = sum(n * (n - 1) for n in (30, 20, 10))
    pairs = 60 * 59
    mean = (same * math.exp(-result.intra) + (pairs - same) * math.exp(-result.inter)) / pairs
    assert result.overall == pytest.approx(-math.log(mean), rel=1e-12)


def test_uniformity_sees_directions_only_and_neither_order_nor_names_of_clients() -> None:
    features, owners = cloud(30, 5), [index % 3 for index in range(30)]
    result = uniformity(features, owners)
    shuffled = torch.randperm(30, generator=torch.Generator().manual_seed(1)).tolist()
    scaled = features * torch.linspace(0.1, 9.0, 30)[:, None]
    again = uniformity(scaled[shuffled], [7 - 3 * owners[row] for row in shuffled])
    assert again.inter == pytest.approx(result.inter, rel=1e-5)
    assert again.intra == pytest.approx(result.intra, rel=1e-5)


def test_separated_clients_are_far_from_each_other_and_close_inside() -> None:
    axes = torch.eye(4).repeat_interleave(5, dim=0)
    result = uniformity(axes, [row // 5 for row in range(20)])
    assert result.intra == pytest.approx(0.0, abs=1e-12)
    assert result.inter == pytest.approx(4.0, rel=1e-12)


def test_the_diagonal_does_not_count() -> None:
    # Two opposite points: the only pair is at squared distance 4.
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).overall == pytest.approx(8.0)
    single = uniformity(torch.ones(1, 3))
    assert math.isnan(single.overall)
    assert (single.samples, single.clients) == (1, 1)


def test_random_directions_in_many_dimensions_are_nearly_as_uniform_as_can_be() -> None:
    features = torch.randn(400, 512, generator=torch.Generator().manual_seed(0))
    assert 3.95 < uniformity(features).overall < 4.0


def test_owners_must_match_the_features() -> None:
    with pytest.raises(ValueError, match="2 owners for 3 features"):
        uniformity(cloud(3, 2), [0, 1])


@pytest.mark.parametrize("shape", [(50, 6), (6, 50), (20, 20)])
def test_effective_rank_is_the_entropy_of_the_singular_values(shape: tuple[int, int]) -> None:
    features = cloud(*shape, seed=3)
    singular = np.linalg.svd(features.numpy().astype(np.float64), compute_uv=False)
    total = sum(singular.tolist())
    entropy = -sum(value / total * math.log(value / total) for value in singular.tolist())
    result = effective_rank(features, chunk=7)
    assert result.value == pytest.approx(math.exp(entropy), rel=1e-6)
    assert result.samples == shape[0]


def test_effective_rank_of_known_matrices() -> None:
    assert effective_rank(torch.eye(5).repeat(3, 1)).value == pytest.approx(5.0)
    assert effective_rank(torch.ones(9, 4)).value == pytest.approx(1.0)
    assert effective_rank(torch.zeros(9, 4)).value == 0.0
    # Singular values 3 and 1, not their squares: shares 3/4 and 1/4. And no centring: two equal rows keep rank 1.
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))).value == pytest.approx(math.exp(entropy))


def test_effective_rank_of_pooled_clients_is_that_of_the_sum_of_their_grams() -> None:
    parts = [cloud(20, 6, seed=seed).double() for seed in range(3)]
    gram = sum((part.T @ part for part in parts), torch.zeros(6, 6, dtype=torch.float64))
    assert effective_rank_of_gram(gram) == pytest.approx(effective_rank(torch.cat(parts)).value, rel=1e-12)


def test_what_all_images_share_is_the_mean_direction_and_the_zeros() -> None:
    same = torch.tensor([[3.0, 0.0], [5.0, 0.0]])
    assert shared(same).direction == pytest.approx(1.0)
    assert shared(same).zeros == 0.5
    opposite = torch.tensor([[2.0, 0.0], [-7.0, 0.0]])
    assert shared(opposite).direction == pytest.approx(0.0)
    right_angle = torch.tensor([[1.0, 0.0], [0.0, 9.0]])
    assert shared(right_angle).direction == pytest.approx(math.sqrt(0.5))


def test_a_constant_added_to_all_features_lowers_uniformity_but_not_around_the_mean() -> None:
    points = cloud(200, 16)
    moved = points + 3.0
    assert uniformity(moved).overall < uniformity(points).overall - 1.0
    centred = [uniformity(each - each.mean(dim=0)).overall for each in (points, moved)]
    assert centred[0] == pytest.approx(centred[1], abs=1e-5)
    assert shared(moved).direction > 0.9 > shared(points).direction


def noisy_pair(images: Tensor, generator: torch.Generator) -> Tensor:
    both = torch.cat([images, images]).float()
    return both + 40 * torch.rand(both.shape, generator=generator)


def test_alignment_is_the_mean_squared_distance_of_two_views() -> None:
    pixels = torch.randint(
        0, 256, (23, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )
    source = TensorImages(pixels)
    seen: list[Tensor] = []

    def encode(images: Tensor) -> Tensor:
        seen.append(images.flatten(1))
        return images.flatten(1)

    result = alignment(encode, source, noisy_pair, seed=5, batch=10)
    distances = []
    for views in seen:
        first, second = views.tolist()[: len(views) // 2], views.tolist()[len(views) // 2 :]
        for one, other in zip(first, second, strict=True):
            distances.append(sum((a - b) ** 2 for a, b in zip(unit(one), unit(other), strict=True)))
    assert len(distances) == result.samples == 23
    assert result.value == pytest.approx(sum(distances) / 23, rel=1e-9)
    assert alignment(encode, source, noisy_pair, seed=5, batch=10) == result
    assert alignment(encode, source, noisy_pair, seed=6, batch=10).value != result.value
    part = alignment(encode, source, noisy_pair, indices=[3, 4])
    assert part.samples == 2
    with pytest.raises(ValueError, match="no images"):
        alignment(encode, source, noisy_pair, indices=[])


def test_two_equal_views_are_perfectly_aligned() -> None:
    source = TensorImages(torch.randint(1, 256, (8, 3, 4, 4), dtype=torch.uint8))
    same = alignment(
        lambda images: images.flatten(1), source, lambda images, _: torch.cat([images, images]).float()
    )
    assert same.value == 0.0


def test_every_result_says_what_it_was_measured_on() -> None:
    spread = uniformity(cloud(4, 2), kind="z", split="test")
    rank = effective_rank(cloud(4, 2), kind="z", split="test")
    assert (spread.features, spread.split, spread.samples) == ("z", "test", 4)
    assert (rank.features, rank.split, rank.samples) == ("z", "test", 4)


class TestZeros:
    """A feature that is zero throughout has no direction; it is a point like any other, where all zeros are."""

    def test_all_zeros_are_one_point_and_not_maximally_spread(self) -> None:
        result = uniformity(torch.zeros(12, 5), [index % 3 for index in range(12)])
        assert (result.overall, result.intra, result.inter) == (0.0, 0.0, 0.0)
        assert result.zeros == 12

    def test_half_zeros_beside_an_orthonormal_frame(self) -> None:
        """m zeros and m axes: distances² are 0 among zeros, 1 between, 2 among axes."""
        m = 8
        result = uniformity(torch.cat([torch.zeros(m, m), torch.eye(m)]))
        pairs = [0.0] * (m * (m - 1) // 2) + [1.0] * (m * m) + [2.0] * (m * (m - 1) // 2)
        expected = -math.log(sum(math.exp(-2 * each) for each in pairs) / len(pairs))
        assert result.overall == pytest.approx(expected, rel=1e-12)
        assert result.overall < 1.3
        assert result.zeros == m

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.94])
    def test_any_share_of_them_equals_the_loop(self, share: float) -> None:
        features = cloud(40, 6)
        features[: round(40 * share)] = 0.0
        owners = [index % 4 for index in range(40)]
        rows = [row if any(row) else None for row in features.tolist()]
        same, different = [], []
        for one, other in combinations(range(40), 2):
            left, right = (unit(rows[each]) if rows[each] else [0.0] * 6 for each in (one, other))
            distance = sum((a - b) ** 2 for a, b in zip(left, right, strict=True))
            (same if owners[one] == owners[other] else different).append(math.exp(-2 * distance))
        result = uniformity(features, owners, chunk=7)
        assert result.intra == pytest.approx(minus_log_mean(same), rel=1e-12)
        assert result.inter == pytest.approx(minus_log_mean(different), rel=1e-12)

    def test_tiny_and_huge_features_keep_their_direction(self) -> None:
        """Squares of 1e-200 are zero in float64; of 1e200, infinite."""
        features = cloud(20, 4).double()
        expected = uniformity(features).overall
        for scale in (1e-300, 1e-40, 1e40, 1e300):
            result = uniformity(features * scale)
            assert result.overall == pytest.approx(expected, rel=1e-9)
            assert result.zeros == 0

    def test_the_share_of_a_common_direction_and_the_rank_take_them_as_points_at_zero(self) -> None:
        assert shared(torch.zeros(4, 3)).direction == 0.0
        assert shared(torch.cat([torch.zeros(4, 3), torch.ones(4, 3)])).direction == pytest.approx(0.5)
        features = cloud(30, 5)
        padded = torch.cat([features, torch.zeros(90, 5)])
        assert effective_rank(padded).value == pytest.approx(effective_rank(features).value, rel=1e-12)
        assert effective_rank(torch.zeros(9, 5)).value == 0.0
