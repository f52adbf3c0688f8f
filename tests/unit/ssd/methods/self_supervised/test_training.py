"""The local training loop: batches, seeds, the optimiser, what it reports and what it leaves alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from ssd.data.images.source import ImageFormat, TensorImages
from ssd.data.views.views import PRESETS, Views
from ssd.losses.dimension_scaled import DimensionScaling
from ssd.losses.presets import OFFICIAL
from ssd.methods.self_supervised.training import (
    STATISTICS,
    LocalTraining,
    MomentumSgd,
    Seeds,
    TooFewImages,
    TrainingDiverged,
    TrainingOptions,
    batch_sizes,
)
from ssd.models import projector
from ssd.models.flat import FlatModel
from ssd.models.projector import ProjectorConfig
from ssd.models.registry import ModelConfig, build_initialised
from ssd.scaling import ScalingVector
from ssd.torch_support.determinism import deterministic

DIM = 12
SEEDS = Seeds(run_seed=7, round=3, client_id="client-000")
SCALING = DimensionScaling.create(ScalingVector(dimension=DIM, indices=(1, 2), alpha=10.0), None)


def source(count: int = 20) -> TensorImages:
    generator = torch.Generator().manual_seed(0)
    return TensorImages(torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator))


def model() -> FlatModel:
    image = ImageFormat(size=8, channels=1)
    head = projector.build_initialised(DIM, ProjectorConfig(hidden_dim=16), 1)
    encoder = build_initialised(ModelConfig(name="small", feature_dim=DIM, width=4), image, 0)
    return FlatModel({"encoder": encoder, "projector": head}, "averaged", "cpu")


def training(**changes: object) -> LocalTraining:
    whole = LocalTraining(
        options=TrainingOptions(local_epochs=2, batch_size=8, drop_last=False),
        losses=OFFICIAL,
        views=Views(PRESETS["digits"]),
        lr=0.05,
        seeds=SEEDS,
        scaling=SCALING,
    )
    return replace(whole, **changes)  # type: ignore[arg-type]  # keywords of the dataclass


def silent(step: int, steps: int, losses: Mapping[str, float]) -> None:
    """Progress that nobody watches."""


@pytest.mark.parametrize(
    ("count", "drop_last", "expected"),
    [
        (20, True, [8, 8]),
        (20, False, [8, 8, 4]),
        (16, False, [8, 8]),
        (17, False, [8, 8]),
        (5, True, [5]),
        (5, False, [5]),
        (2, True, [2]),
    ],
)
def test_batches_follow_the_rules(count: int, drop_last: bool, expected: list[int]) -> None:
    """Drop the rest only if a full batch is there; never train on a batch of one."""
    assert batch_sizes(count, TrainingOptions(batch_size=8, drop_last=drop_last)) == expected


def test_views_apart_are_two_passes_of_the_model_as_in_the_official_code() -> None:
    """Against the definition: BatchNorm normalises each view by its own batch and counts it as a step of its own."""
    together, apart = model(), model()
    options = TrainingOptions(local_epochs=1, batch_size=20, drop_last=False)
    for trained, how in ((together, False), (apart, True)):
        training(options=options, lr=0.0, apart=how).run(trained, source(), silent)
    views = Views(PRESETS["digits"]).pair(source().batch(SEEDS.order(0, 20)), SEEDS.views())
    expected = model()
    for part in views.chunk(2):
        expected.parts["projector"](expected.parts["encoder"](part))
    names = expected.parts["encoder"].state_dict()
    for name, value in apart.parts["encoder"].state_dict().items():
        assert torch.equal(value, names[name]), name
    other = together.parts["encoder"].state_dict()
    statistics = [name for name in names if name.endswith("running_mean")]
    assert statistics
    assert all(not torch.equal(other[name], names[name]) for name in statistics)


@pytest.mark.parametrize("count", [0, 1])
def test_a_client_without_a_pair_of_images_is_told_so(count: int) -> None:
    with pytest.raises(TooFewImages, match="at least two images"):
        batch_sizes(count, TrainingOptions())


def test_an_epoch_is_a_permutation_that_depends_on_every_seed() -> None:
    order = SEEDS.order(0, 50)
    assert sorted(order) == list(range(50))
    others = [
        replace(SEEDS, run_seed=8).order(0, 50),
        replace(SEEDS, round=4).order(0, 50),
        replace(SEEDS, client_id="client-001").order(0, 50),
        SEEDS.order(1, 50),
    ]
    assert all(other != order for other in others)
    assert SEEDS.order(0, 50) == order


def test_equal_training_gives_equal_bits_and_another_client_does_not() -> None:
    results = []
    for seeds in (SEEDS, SEEDS, replace(SEEDS, client_id="client-001")):
        trained = model()
        statistics = training(seeds=seeds).run(trained, source(), silent)
        results.append((trained.vector(), statistics))
    assert np.array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert not np.array_equal(results[0][0], results[2][0])


def test_global_generators_and_the_thread_count_are_left_as_they_were() -> None:
    torch_before, numpy_before, threads = (
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),
        torch.get_num_threads(),
    )
    with deterministic(torch.device("cpu"), threads + 1):
        assert torch.get_num_threads() == threads + 1
        training().run(model(), source(), silent)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)
    assert torch.get_num_threads() == threads


def test_the_optimiser_is_torchs_sgd() -> None:
    target = torch.randn(30, generator=torch.Generator().manual_seed(0))
    ours, theirs = torch.ones(30), torch.ones(30, requires_grad=True)
    mine = MomentumSgd(lr=0.1, momentum=0.9, weight_decay=1e-2)
    reference = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=1e-2)
    for _ in range(5):
        mine.step(ours, 2.0 * (ours - target))
        reference.zero_grad()
        (theirs - target).square().sum().backward()
        reference.step()
    assert torch.allclose(ours, theirs.detach(), atol=1e-6)


def test_a_step_moves_against_the_gradient_of_the_reported_loss() -> None:
    """One full-batch step at a small rate lowers the loss of the same views by rate · ‖gradient‖²."""
    quiet = training(
        options=TrainingOptions(local_epochs=1, batch_size=32, weight_decay=0.0),
        views=Views(PRESETS["none"]),
        lr=1e-4,
    )
    trained = model()
    before = trained.vector()
    first = quiet.run(trained, source(), silent)["loss_sum"]
    step = trained.vector() - before
    after = quiet.run(trained, source(), silent)["loss_sum"]
    parameters = step[: trained.trainable.numel()]
    expected = -float(np.dot(parameters, parameters)) / 1e-4
    assert after - first == pytest.approx(expected, rel=0.1)


def test_statistics_are_sums_over_the_batches() -> None:
    seen: list[Mapping[str, float]] = []
    statistics = training().run(model(), source(), lambda step, steps, losses: seen.append(losses))
    assert set(statistics) == set(STATISTICS)
    assert statistics["batches"] == len(seen) == 6
    assert statistics["images"] == 40
    for name in ("loss", "alignment", "uniformity", "dsr", "distillation", "embedding_norm"):
        assert statistics[f"{name}_sum"] == pytest.approx(sum(losses[name] for losses in seen))
    weighted = statistics["alignment_sum"] + statistics["uniformity_sum"] + statistics["dsr_sum"]
    assert statistics["loss_sum"] == pytest.approx(weighted + 0.1 * statistics["distillation_sum"], rel=1e-5)


def test_progress_counts_to_the_last_step() -> None:
    steps: list[tuple[int, int]] = []
    training().run(model(), source(), lambda step, of, losses: steps.append((step, of)))
    assert steps == [(i, 6) for i in range(1, 7)]


def test_a_loss_that_is_not_finite_stops_training_with_what_to_do() -> None:
    with pytest.raises(TrainingDiverged, match=r"client-000.*round 3.*learning rate"):
        training(lr=1e30).run(model(), source(), silent)


class Failing(TensorImages):
    """Images of which the ones after the first batches cannot be read."""

    calls = 0

    def batch(self, indices: Sequence[int]) -> torch.Tensor:
        self.calls += 1
        if self.calls == 3:
            raise OSError("the disk is gone")
        return super().batch(indices)


def test_an_image_that_cannot_be_read_ends_training_with_its_error() -> None:
    """Batches are read ahead on another thread; the error must still come out here."""
    broken = Failing(source().batch(range(20)))
    seen: list[int] = []
    with pytest.raises(OSError, match="the disk is gone"):
        training().run(model(), broken, lambda step, of, losses: seen.append(step))
    assert seen == [1, 2]


def test_training_does_not_import_the_compiler() -> None:
    """torch's own optimisers and `Module.to_empty` do, which would cost every training process a second."""
    import subprocess
    import sys

    program = (
        "import sys, torch; before = set(sys.modules); from ssd.models.registry import *; "
        "build_initialised(ModelConfig(name='small'), ImageFormat(size=8, channels=1), 0); "
        "from ssd.methods.self_supervised.training import MomentumSgd; MomentumSgd(0.1, 0.9, 0.0).step(torch.ones(2), torch.ones(2)); "
        "late = {'sympy', 'torch._dynamo', 'torch.fx.experimental.symbolic_shapes'} - before; "
        "print(late.isdisjoint(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize(
    "wrong", [{"local_epochs": 0}, {"batch_size": 1}, {"momentum": 1.0}, {"weight_decay": -1.0}]
)
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainingOptions(**wrong)  # type: ignore[arg-type]  # wrong on purpose
