"""SimCLR, VICReg and Barlow Twins as methods: what they train, and SSD's terms on top of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from ssd.losses.joint_embedding.barlow_twins import BarlowTwinsOptions, barlow_twins
from ssd.losses.joint_embedding.nt_xent import NtXentOptions, nt_xent
from ssd.losses.joint_embedding.vicreg import VicRegOptions, vicreg
from ssd.method.registry import load
from ssd.methods.self_supervised import fed_align_uniform, feddecorr, ssd
from ssd.methods.self_supervised.base import AlignUniform
from ssd.models.flat import FlatModel
from ssd.settings import SettingsError
from ssd.updates.declaration import Declaration
from training.training_samples import SMALL, digits, task_for, train

NAMES = ("simclr", "vicreg", "barlow_twins")
LOSSES: dict[str, Any] = {
    "simclr": lambda first, second: nt_xent(first, second, NtXentOptions()),
    "vicreg": lambda first, second: vicreg(first, second, VicRegOptions()),
    "barlow_twins": lambda first, second: barlow_twins(first, second, BarlowTwinsOptions()),
}


def named(name: str, **more: Any) -> AlignUniform:
    method = load(name, {**SMALL, **more})
    assert isinstance(method, AlignUniform)
    return method


@pytest.mark.parametrize("name", NAMES)
class TestEach:
    def test_the_reported_loss_is_that_of_the_two_views(self, name: str) -> None:
        """One batch, so that the first step's loss is all there is; made again from the model it starts from."""
        method, data = named(name), digits(0, 16)
        seen: list[float] = []
        task = task_for(method)
        method.train(task, data, lambda step, steps, losses: seen.append(losses["loss"]))
        assert len(seen) == 1
        model = FlatModel(method._parts(), "weighted", "cpu")
        model.load(task.base)
        for part in model.parts.values():
            part.train()
        from ssd.methods.self_supervised.training import Seeds

        seeds = Seeds(run_seed=task.run_seed, round=task.round, client_id=task.client_id)
        images = data.batch(seeds.order(0, 16))
        both = method._views.pair(images, seeds.views())
        first, second = model.parts["projector"](model.parts["encoder"](both)).chunk(2)
        assert seen[0] == pytest.approx(float(LOSSES[name](first, second)), rel=1e-5)

    def test_training_lowers_its_loss(self, name: str) -> None:
        lr = {"lr": 0.005}  # VICReg's weights of 25 want a lower rate than the other objectives
        sums = [
            train(named(name, local_epochs=epochs), digits(0, 128), values=lr).statistics for epochs in (1, 8)
        ]
        means = [float(each["loss_sum"]) / float(each["batches"]) for each in sums]
        assert means[1] < means[0]

    def test_the_same_task_gives_the_same_bits(self, name: str) -> None:
        assert train(named(name)).delta.tobytes() == train(named(name)).delta.tobytes()

    def test_its_declaration_survives_json(self, name: str) -> None:
        first = named(name).declare()
        stored = Declaration.from_json(json.loads(json.dumps(first.to_json(), allow_nan=False)))
        assert load(name, stored.config).declare().digest == stored.digest == first.digest

    def test_it_is_the_base_with_that_objective(self, name: str) -> None:
        base = fed_align_uniform.create({**SMALL, "objective": name})
        assert np.array_equal(train(base).delta, train(named(name)).delta)

    def test_ssds_terms_go_on_top_of_it(self, name: str) -> None:
        bare = ssd.create({**SMALL, "objective": name, "losses": {"gamma": 0.0, "delta": 0.0}})
        assert np.array_equal(train(bare).delta, train(named(name)).delta), (
            "without its terms SSD is its base"
        )
        sums = train(ssd.create({**SMALL, "objective": name}), digits(0, 16)).statistics
        own = train(named(name), digits(0, 16)).statistics["loss_sum"]
        parts = float(own) + float(sums["dsr_sum"]) + 0.1 * float(sums["distillation_sum"])
        assert float(sums["loss_sum"]) == pytest.approx(parts, rel=1e-5)

    def test_so_does_a_penalty(self, name: str) -> None:
        sums = train(
            feddecorr.create({**SMALL, "objective": name, "coefficient": 0.3}), digits(0, 16)
        ).statistics
        own = train(named(name), digits(0, 16)).statistics["loss_sum"]
        assert float(sums["loss_sum"]) == pytest.approx(
            float(own) + 0.3 * float(sums["decorrelation_sum"]), rel=1e-5
        )

    def test_alignment_and_uniformity_are_measured_and_not_trained(self, name: str) -> None:
        weighed = train(named(name, losses={"beta": 7.0})).delta
        assert np.array_equal(weighed, train(named(name)).delta)
        assert float(train(named(name)).statistics["alignment_sum"]) > 0

    def test_another_objective_under_its_name_is_refused(self, name: str) -> None:
        with pytest.raises(SettingsError, match="objective"):
            named(name, objective="align_uniform")


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("simclr", {"nt_xent": {"temperature": 0.1}}),
        ("vicreg", {"vicreg": {"form": "paper"}}),
        ("vicreg", {"vicreg": {"invariance": 1.0}}),
        ("vicreg", {"vicreg": {"variance": 1.0}}),
        ("vicreg", {"vicreg": {"covariance": 10.0}}),
        ("barlow_twins", {"barlow_twins": {"redundancy": 0.5}}),
        ("barlow_twins", {"barlow_twins": {"scale": 0.5}}),
    ],
)
def test_its_settings_change_what_is_trained(name: str, setting: dict[str, Any]) -> None:
    assert not np.array_equal(train(named(name, **setting)).delta, train(named(name)).delta)


def test_choices_of_another_objective_change_nothing() -> None:
    assert named("simclr", vicreg={"form": "paper"}).declare().digest != named("simclr").declare().digest
    assert np.array_equal(
        train(named("simclr", vicreg={"form": "paper"})).delta, train(named("simclr")).delta
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_client_with_two_images_trains(name: str) -> None:
    assert torch.isfinite(torch.from_numpy(train(named(name), digits(0, 2)).delta)).all()
