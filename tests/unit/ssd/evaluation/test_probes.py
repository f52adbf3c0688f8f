import math
import time

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssd.data.images.builtin import load_builtin
from ssd.data.images.few_labels import draw
from ssd.data.images.source import ImageFormat, ProbeData, TensorImages
from ssd.data.partition.partition import dirichlet
from ssd.data.views.views import PRESETS, Views
from ssd.evaluation.evaluate import EvaluationOptions, evaluate_encoder
from ssd.evaluation.features import features, module_encoder
from ssd.evaluation.knn import knn
from ssd.evaluation.linear_probe import linear_probe, standardise
from ssd.models.registry import ModelConfig, build_initialised


def blobs(count: int, classes: int = 3, spread: float = 0.4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points around one axis per class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    return torch.eye(classes, 5)[labels] + spread * torch.randn(count, 5, generator=generator), labels


class TestFewLabels:
    def test_every_class_gives_the_same_number_and_draws_differ(self) -> None:
        labels = [index % 4 for index in range(200)]
        drawn = [draw(labels, 3, seed=0, number=number) for number in range(4)]
        for rows in drawn:
            assert rows == sorted(set(rows))
            assert np.bincount([labels[row] for row in rows]).tolist() == [3] * 4
        assert len({tuple(rows) for rows in drawn}) == 4

    def test_a_draw_depends_on_the_labels_and_the_seed_only(self) -> None:
        labels = [index % 4 for index in range(200)]
        assert draw(labels, 3, seed=1, number=0) == draw(labels, 3, seed=1, number=0)
        assert draw(labels, 3, seed=1, number=0) != draw(labels, 3, seed=2, number=0)

    def test_a_class_with_too_few_images_gives_all(self) -> None:
        assert draw([0, 0, 0, 1], 2, seed=0, number=0)[-1] == 3
        with pytest.raises(ValueError, match="at least one label"):
            draw([0, 1], 0, seed=0, number=0)


class TestLinearProbe:
    def test_it_ends_at_the_optimum_of_the_penalised_likelihood(self) -> None:
        """Against a plain gradient descent on the definition, in float64."""
        train, labels = blobs(90)
        test, expected = blobs(600, seed=1)
        x, q = standardise(train, test)
        truth = np.eye(3)[labels.numpy()]
        weight, bias = np.zeros((5, 3)), np.zeros(3)
        for _ in range(2000):
            scores = np.exp(x @ weight + bias)
            error = scores / scores.sum(axis=1, keepdims=True) - truth
            weight -= 0.02 * (x.T @ error + weight)
            bias -= 0.02 * error.sum(axis=0)
        guess = (q @ weight + bias).argmax(axis=1)
        result = linear_probe(train, labels, test, expected)
        assert result.accuracy == pytest.approx(float((guess == expected.numpy()).mean()), abs=0.004)
        assert result.converged
        assert (result.std, result.draws, result.labels_per_class) == (0.0, 1, None)
        assert (result.train_samples, result.test_samples, result.features) == (90, 600, "h")
        assert (result.train_split, result.test_split) == ("train", "test")

    def test_few_labels_report_mean_and_deviation_over_draws(self) -> None:
        train, labels = blobs(300, spread=0.8)
        test, expected = blobs(300, spread=0.8, seed=1)
        few = linear_probe(train, labels, test, expected, labels_per_class=2, draws=4, seed=9)
        assert few.draws == 4
        assert few.train_samples == 6
        assert 0 < few.std < 0.3
        assert few.accuracy == pytest.approx(sum(self.by_hand(train, labels, test, expected)) / 4)
        assert few == linear_probe(train, labels, test, expected, labels_per_class=2, draws=4, seed=9)
        assert linear_probe(train, labels, test, expected).accuracy > few.accuracy > 1 / 3

    @staticmethod
    def by_hand(train: Tensor, labels: Tensor, test: Tensor, expected: Tensor) -> list[float]:
        """The few-label accuracies with scikit-learn directly, on features standardised over all images."""
        from sklearn.linear_model import LogisticRegression

        x, q = standardise(train, test)
        chosen = [draw(labels.tolist(), 2, seed=9, number=number) for number in range(4)]
        return [
            float(LogisticRegression(max_iter=1000).fit(x[rows], labels[rows]).score(q, expected))
            for rows in chosen
        ]

    def test_scale_and_shift_of_features_do_not_matter(self) -> None:
        train, labels = blobs(120)
        test, expected = blobs(120, seed=1)
        plain = linear_probe(train, labels, test, expected)
        moved = linear_probe(1e-3 * train + 5, labels, 1e-3 * test + 5, expected)
        assert moved.accuracy == pytest.approx(plain.accuracy, abs=0.01)

    def test_a_constant_feature_is_ignored_and_a_collapsed_encoder_is_no_better_than_chance(self) -> None:
        train, labels = blobs(120)
        test, expected = blobs(120, seed=1)
        constant = torch.cat([train, torch.full((120, 1), 3.0)], dim=1)
        with_constant = linear_probe(
            constant, labels, torch.cat([test, torch.zeros(120, 1)], dim=1), expected
        )
        assert with_constant.accuracy == linear_probe(train, labels, test, expected).accuracy
        collapsed = linear_probe(torch.ones(120, 4), labels, torch.ones(120, 4), expected)
        assert collapsed.accuracy == pytest.approx(1 / 3, abs=0.01)

    def test_features_and_labels_must_match(self) -> None:
        train, labels = blobs(9)
        with pytest.raises(ValueError, match="9/9 features for 8/9 labels"):
            linear_probe(train, labels[:-1], train, labels)
        with pytest.raises(ValueError, match="8/9 labels"):
            knn(train, labels[:-1], train, labels)

    def test_a_solver_that_did_not_finish_says_so(self) -> None:
        train, labels = blobs(90)
        assert not linear_probe(train, labels, train, labels, max_iterations=1).converged


def looped_knn(train: Tensor, labels: Tensor, query: list[float], k: int, temperature: float) -> int:
    def unit(row: list[float]) -> list[float]:
        length = math.sqrt(sum(value * value for value in row))
        return [value / length for value in row]

    similarity = [sum(a * b for a, b in zip(unit(row), unit(query), strict=True)) for row in train.tolist()]
    nearest = sorted(range(len(train)), key=lambda row: -similarity[row])[:k]
    votes: dict[int, float] = {}
    for row in nearest:
        votes[int(labels[row])] = votes.get(int(labels[row]), 0.0) + math.exp(similarity[row] / temperature)
    return max(votes, key=lambda label: votes[label])


class TestKnn:
    @pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (7, 0.1), (25, 0.5), (500, 0.1)])
    def test_it_equals_the_loop_over_neighbours(self, k: int, temperature: float) -> None:
        train, labels = blobs(60, spread=0.9)
        test, expected = blobs(50, spread=0.9, seed=1)
        guesses = [looped_knn(train, labels, row, k, temperature) for row in test.tolist()]
        share = sum(guess == int(label) for guess, label in zip(guesses, expected, strict=True)) / 50
        assert knn(train, labels, test, expected, k=k, temperature=temperature).accuracy == pytest.approx(
            share
        )

    def test_a_zero_feature_is_nearest_to_the_zero_features(self) -> None:
        train = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
        labels = torch.tensor([0, 0, 1, 0])
        # All cosines were 0 before, and the first rows won.
        assert knn(train, labels, torch.zeros(1, 2), torch.tensor([1]), k=1).accuracy == 1.0
        # One away from the zero row, the square root of two from what is at a right angle.
        query = torch.tensor([[0.0, -1.0]])
        assert knn(train[1:3], labels[1:3], query, torch.tensor([1]), k=1).accuracy == 1.0

    def test_few_labels_use_the_draws_of_the_linear_probe(self) -> None:
        train, labels = blobs(60, spread=0.9)
        test, expected = blobs(50, spread=0.9, seed=1)
        result = knn(train, labels, test, expected, k=1, labels_per_class=1, draws=3, seed=4)
        by_hand = []
        for number in range(3):
            rows = draw(labels.tolist(), 1, seed=4, number=number)
            by_hand.append(knn(train[rows], labels[rows], test, expected, k=1).accuracy)
        assert result.accuracy == pytest.approx(sum(by_hand) / 3)
        assert result.std == pytest.approx(float(np.std(by_hand, ddof=1)))
        assert (result.draws, result.train_samples, result.labels_per_class) == (3, 3, 1)


class TestFeatures:
    def test_a_module_is_evaluated_and_left_as_it_was(self) -> None:
        module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(0.5))
        module[2].eval()
        before = {name: value.clone() for name, value in module.state_dict().items()}
        source = TensorImages(torch.randint(0, 256, (10, 1, 4, 4), dtype=torch.uint8))
        result = features(module_encoder(module), source, batch=3)
        assert result.shape == (10, 16)
        assert result.dtype == torch.float32
        expected = source.batch(range(10)).flatten(1).float() / 255 / math.sqrt(1 + 1e-5)
        assert torch.allclose(result, expected, atol=1e-6)
        assert [part.training for part in module] == [True, True, False]
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())

    def test_features_are_flat_float32_in_the_order_of_the_source(self) -> None:
        source = TensorImages(torch.arange(5, dtype=torch.uint8).reshape(5, 1, 1, 1).repeat(1, 1, 4, 4))
        result = features(lambda images: images.double(), source, batch=2)
        assert result.shape == (5, 16)
        assert result[:, 0].tolist() == [0, 1, 2, 3, 4]

    def test_a_diverged_encoder_and_an_empty_source_are_refused(self) -> None:
        source = TensorImages(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
        with pytest.raises(ValueError, match="diverged"):
            features(lambda images: images.float() * math.nan, source)
        with pytest.raises(ValueError, match="no images"):
            features(lambda images: images, TensorImages(torch.zeros(0, 1, 4, 4, dtype=torch.uint8)))


@pytest.fixture(scope="module")
def digits() -> ProbeData:
    return load_builtin("digits", ImageFormat(size=8, channels=1)).probe()


def flat_pixels(images: Tensor) -> Tensor:
    return images.flatten(1).float()


class TestEvaluateEncoder:
    def test_everything_is_measured_on_digits_within_seconds(self, digits: ProbeData) -> None:
        module = build_initialised(
            ModelConfig(name="small", feature_dim=64), ImageFormat(size=8, channels=1), seed=0
        )
        labels = digits.train.labels
        assert labels is not None
        clients = dirichlet(labels.tolist(), 10, 0.1, seed=0).clients
        options = EvaluationOptions(views=Views(PRESETS["digits"]).pair, labels_per_class=(2, 10))
        evaluate_encoder(flat_pixels, digits)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            started = time.process_time()
            values = evaluate_encoder(module_encoder(module), digits, clients, options)
            elapsed = time.process_time() - started
            again = evaluate_encoder(module_encoder(module), digits, clients, options)
        finally:
            torch.set_num_threads(threads)
        assert elapsed < 10  # seconds of computing; about one on any core, however busy the machine is
        assert set(values) == {
            "train_samples", "test_samples", "knn_k",
            "linear_probe_all", "linear_probe_2_per_class", "linear_probe_2_per_class_std",
            "linear_probe_10_per_class", "linear_probe_10_per_class_std",
            "knn_all", "knn_2_per_class", "knn_2_per_class_std", "knn_10_per_class", "knn_10_per_class_std",
            "labelled_samples_2_per_class", "labelled_samples_10_per_class",
            "uniformity_global", "uniformity_intra", "uniformity_inter", "uniformity_clients", "uniformity_samples",
            "effective_rank", "effective_rank_samples", "alignment", "alignment_samples",
        }  # fmt: skip
        assert all(type(value) is float and math.isfinite(value) for value in values.values())
        assert (values["train_samples"], values["test_samples"]) == (1437, 360)
        assert values["labelled_samples_2_per_class"] == 20
        assert (
            values["linear_probe_2_per_class"]
            < values["linear_probe_10_per_class"]
            < values["linear_probe_all"]
        )
        assert 1 <= values["effective_rank"] <= 64
        assert values == again

    def test_raw_pixels_of_digits_score_what_everybody_finds(self, digits: ProbeData) -> None:
        values = evaluate_encoder(flat_pixels, digits)
        assert values["linear_probe_all"] > 0.94
        assert values["knn_all"] > 0.96
        assert "alignment" not in values
        assert "uniformity_inter" not in values
        assert values["uniformity_samples"] == 1437

    def test_images_nobody_owns_take_no_part_in_the_geometry(self, digits: ProbeData) -> None:
        clients = {"a": range(50), "b": range(100, 130)}
        values = evaluate_encoder(
            flat_pixels, digits, clients, EvaluationOptions(views=Views(PRESETS["none"]).pair)
        )
        assert (values["uniformity_samples"], values["alignment_samples"]) == (80, 80)
        assert values["uniformity_clients"] == 2
        sampled = evaluate_encoder(flat_pixels, digits, clients, EvaluationOptions(quality_samples=30))
        assert sampled["uniformity_samples"] == 30
        assert sampled["effective_rank_samples"] == 1437

    def test_a_single_client_has_no_inter_client_uniformity(self, digits: ProbeData) -> None:
        values = evaluate_encoder(flat_pixels, digits, {"a": range(50)})
        assert "uniformity_inter" not in values
        assert values["uniformity_intra"] == values["uniformity_global"]

    def test_clients_that_do_not_fit_the_probe_are_refused(self, digits: ProbeData) -> None:
        with pytest.raises(ValueError, match="'a' owns image 1437, but the probe has 1437"):
            evaluate_encoder(flat_pixels, digits, {"a": [1437]})
        with pytest.raises(ValueError, match="image 3 belongs to two clients"):
            evaluate_encoder(flat_pixels, digits, {"a": [3], "b": [3]})
        bare = TensorImages(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
        with pytest.raises(ValueError, match="'bare' has no labels"):
            evaluate_encoder(flat_pixels, ProbeData(train=bare, test=bare, name="bare"))


def test_centred_measures_are_there_when_asked_for(digits: ProbeData) -> None:
    values = evaluate_encoder(
        flat_pixels,
        digits,
        {"a": [0, 1, 2], "b": [3, 4]},
        EvaluationOptions(measures=("centred",), splits=("train", "test")),
    )
    names = {name for name in values if not name.endswith("samples")}
    around = {"centred_uniformity_global", "centred_effective_rank", "common_direction", "zero_share"}
    split = {"centred_uniformity_intra", "centred_uniformity_inter", "centred_uniformity_clients"}
    assert names == around | split | {f"test_{name}" for name in around}
