"""Fine-tuning on a share of the labels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from ssd.data.images.builtin import load_builtin
from ssd.data.images.few_labels import draw_share
from ssd.data.images.source import ImageFormat, ProbeData, TensorImages
from ssd.evaluation.evaluate import EvaluationOptions, evaluate_encoder
from ssd.evaluation.features import module_encoder
from ssd.evaluation.fine_tuning import FineTuning, fine_tune
from ssd.models.registry import ModelConfig, build_initialised

IMAGE = ImageFormat(size=8, channels=1)


@pytest.fixture(scope="module")
def digits() -> ProbeData:
    return load_builtin("digits", IMAGE).probe()


def encoder(feature_dim: int = 8, width: int = 4) -> nn.Module:
    return build_initialised(ModelConfig(name="small", feature_dim=feature_dim, width=width), IMAGE, seed=0)


class TestShares:
    def test_a_share_has_its_exact_size_and_the_classes_in_proportion(self) -> None:
        labels = [0] * 600 + [1] * 300 + [2] * 100
        rows = draw_share(labels, 0.1, seed=0)
        assert rows == sorted(set(rows))
        assert np.bincount([labels[row] for row in rows]).tolist() == [60, 30, 10]
        assert len(draw_share(labels, 0.015, seed=0)) == 15
        assert draw_share(labels, 1.0, seed=0) == list(range(1000))

    def test_it_depends_on_the_seed_and_the_labels_only(self) -> None:
        labels = [index % 4 for index in range(400)]
        assert draw_share(labels, 0.1, seed=1) == draw_share(labels, 0.1, seed=1)
        assert draw_share(labels, 0.1, seed=1) != draw_share(labels, 0.1, seed=2)

    def test_fewer_labels_than_classes_are_refused(self) -> None:
        with pytest.raises(ValueError, match="1% of 40 labels are 0, fewer than the 4 classes"):
            draw_share([index % 4 for index in range(40)], 0.01, seed=0)
        with pytest.raises(ValueError, match="between 0 and 1"):
            draw_share([0, 1], 0.0, seed=0)


class TestFineTuning:
    def test_it_beats_the_probe_of_an_untrained_encoder(self, digits: ProbeData) -> None:
        module = encoder(feature_dim=16, width=8)
        probed = evaluate_encoder(
            module_encoder(module),
            digits,
            options=EvaluationOptions(measures=("few_labels",), labels_per_class=(14,), draws=2),
        )
        recipe = FineTuning(epochs=30, batch=16, encoder_lr=0.05)
        tuned = fine_tune(module, digits, 0.1, feature_dim=16, recipe=recipe)
        assert tuned.labelled_samples == 144
        assert tuned.accuracy > probed["linear_probe_14_per_class"] + 0.05

    def test_the_encoder_is_left_as_it_was_and_equal_seeds_give_equal_bits(self, digits: ProbeData) -> None:
        module = encoder()
        before = {name: value.clone() for name, value in module.state_dict().items()}
        recipe = FineTuning(epochs=2, looks=True)
        first = fine_tune(module, digits, 0.02, feature_dim=8, recipe=recipe, seed=5)
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
        torch.rand(3)
        assert fine_tune(module, digits, 0.02, feature_dim=8, recipe=recipe, seed=5) == first

    def test_the_last_epoch_counts_and_looking_changes_nothing(self, digits: ProbeData) -> None:
        module = encoder()
        plain = fine_tune(module, digits, 0.1, feature_dim=8, recipe=FineTuning(epochs=8))
        looking = fine_tune(module, digits, 0.1, feature_dim=8, recipe=FineTuning(epochs=8, looks=True))
        assert plain.best_of_looks is None
        assert looking.accuracy == plain.accuracy
        assert looking.best_of_looks is not None
        assert looking.best_of_looks >= looking.accuracy

    def test_test_labels_teach_nothing(self, digits: ProbeData) -> None:
        assert digits.test.labels is not None
        moved = TensorImages(digits.test.batch(range(360)), (digits.test.labels + 1) % 10)
        other = ProbeData(train=digits.train, test=moved, name="moved")
        recipe = FineTuning(epochs=15, encoder_lr=0.05)
        right = fine_tune(encoder(), digits, 0.1, feature_dim=8, recipe=recipe).accuracy
        wrong = fine_tune(encoder(), other, 0.1, feature_dim=8, recipe=recipe).accuracy
        assert right + wrong <= 1.0
        assert right > wrong

    def test_the_layer_has_a_rate_of_its_own(self, digits: ProbeData) -> None:
        """With the encoder's rate at zero only the layer and the running statistics move."""
        recipe = FineTuning(epochs=20, batch=8, encoder_lr=0.0)
        frozen = fine_tune(encoder(), digits, 0.1, feature_dim=8, recipe=recipe).accuracy
        nothing = FineTuning(epochs=20, batch=8, encoder_lr=0.0, head_lr=0.0)
        still = fine_tune(encoder(), digits, 0.1, feature_dim=8, recipe=nothing).accuracy
        assert frozen > still + 0.1

    def test_what_cannot_be_tuned_is_refused(self, digits: ProbeData) -> None:
        images = digits.train.batch(range(40))
        bare = TensorImages(images)
        with pytest.raises(ValueError, match="no labels"):
            fine_tune(encoder(), ProbeData(train=bare, test=bare, name="bare"), 0.5, feature_dim=8)
        alike = TensorImages(images, torch.zeros(40))
        with pytest.raises(ValueError, match="two classes"):
            fine_tune(encoder(), ProbeData(train=alike, test=alike, name="alike"), 0.5, feature_dim=8)
        diverging = FineTuning(epochs=3, head_lr=1e30, encoder_lr=1e30)
        with pytest.raises(ValueError, match="diverged"):
            fine_tune(encoder(), digits, 0.1, feature_dim=8, recipe=diverging)

    def test_a_batch_of_one_is_left_out_and_every_epoch_told(self, digits: ProbeData) -> None:
        images = TensorImages(digits.train.batch(range(5)), torch.tensor([0, 1, 0, 1, 1]))
        small = ProbeData(train=images, test=images, name="small")
        told: list[tuple[int, int]] = []
        result = fine_tune(
            encoder(), small, 1.0, feature_dim=8, recipe=FineTuning(epochs=3, batch=4),
            track=lambda what, done, total: told.append((done, total)),
        )  # fmt: skip
        assert result.labelled_samples == 5
        assert all(first < second for first, second in pairwise(told))
        assert told == [(1, 3), (2, 3), (3, 3)]
