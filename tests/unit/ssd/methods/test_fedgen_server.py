"""The generator and the server's step on it: a pure function that learns, and that can stop and go on anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from ssd.losses.diversity import diversity
from ssd.losses.ensemble import averaged_head
from ssd.methods.fedgen.server import (
    GeneratorDiverged,
    GeneratorReport,
    GeneratorState,
    GeneratorTraining,
    Teacher,
    train_generator,
)
from ssd.models.flat import BUFFERS
from ssd.models.generator import (
    GENERATOR,
    GeneratorConfig,
    flat_generator,
    initial_vector,
    spec_of,
)
from ssd.torch_support.determinism import deterministic
from ssd.updates.spec import Kind

SMALL = GeneratorConfig(noise_dim=4, hidden_dim=16)
CLASSES, LATENT = 4, 6
TRAINING = GeneratorTraining(steps=5, batch_size=8)
UNIFORM = np.full(CLASSES, 1.0 / CLASSES)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with deterministic(torch.device("cpu"), 1):
        yield


def fresh(seed: int = 1) -> GeneratorState:
    vector = initial_vector(SMALL, classes=CLASSES, latent_dim=LATENT, seed=seed)
    spec = spec_of(SMALL, classes=CLASSES, latent_dim=LATENT)
    return GeneratorState.fresh(vector, spec.groups[GENERATOR].stop)


def head(seed: int = 2) -> Teacher:
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(CLASSES, LATENT, generator=random)
    return partial(averaged_head, weight=weight, bias=torch.randn(CLASSES, generator=random))


def one_round(
    state: GeneratorState,
    seed: int,
    *,
    teacher: Teacher | None = None,
    labels: np.ndarray = UNIFORM,
    training: GeneratorTraining = TRAINING,
    lr: float = 1e-2,
) -> tuple[GeneratorState, GeneratorReport]:
    room = flat_generator(SMALL, classes=CLASSES, latent_dim=LATENT)
    return train_generator(
        room, state, teacher or head(), labels, noise=SMALL, training=training, lr=lr, seed=seed
    )


def same(first: GeneratorState, second: GeneratorState) -> bool:
    pairs = [(first.vector, second.vector), (first.first, second.first), (first.second, second.second)]
    return first.steps == second.steps and all(a.tobytes() == b.tobytes() for a, b in pairs)


@pytest.mark.parametrize(
    ("config", "classes", "parameters", "statistics"),
    [
        (GeneratorConfig(), 10, 19_744, 512),  # MNIST
        (GeneratorConfig(), 26, 23_840, 512),  # EMNIST letters
        (GeneratorConfig(hidden_dim=128), 2, 8_864, 256),  # CelebA
    ],
)
def test_the_generator_has_the_sizes_of_the_official_code(
    config: GeneratorConfig, classes: int, parameters: int, statistics: int
) -> None:
    spec = spec_of(config, classes=classes, latent_dim=32)
    assert {name: where.stop - where.start for name, where in spec.groups.items()} == {
        GENERATOR: parameters,
        BUFFERS: statistics,
    }
    assert sum(t.size for t in spec.tensors if t.kind is Kind.PARAMETER) == parameters
    assert initial_vector(config, classes=classes, latent_dim=32, seed=0).shape == (parameters + statistics,)


@pytest.mark.parametrize(("noise", "mean", "deviation"), [("uniform", 0.5, 12**-0.5), ("gaussian", 0.0, 1.0)])
def test_noise_is_drawn_as_configured(noise: str, mean: float, deviation: float) -> None:
    config = GeneratorConfig(noise=noise)  # type: ignore[arg-type]
    drawn = config.draw(2000, torch.Generator().manual_seed(0))
    assert drawn.shape == (2000, 32)
    assert float(drawn.mean()) == pytest.approx(mean, abs=0.02)
    assert float(drawn.std()) == pytest.approx(deviation, abs=0.02)
    assert (noise == "uniform") == bool((drawn >= 0).all())
    assert torch.equal(drawn, config.draw(2000, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("wrong", [{"noise_dim": 0}, {"hidden_dim": 0}])
def test_a_generator_without_room_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        GeneratorConfig(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"batch_size": 1}, {"weight_decay": -1.0}, {"diversity": -0.5}]
)
def test_generator_training_that_is_none_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must not|needs at least"):
        GeneratorTraining(**wrong)  # type: ignore[arg-type]


def test_the_generator_learns_what_the_heads_agree_on() -> None:
    state, first = one_round(fresh(), 0)
    for seed in range(1, 30):
        state, last = one_round(state, seed)
    assert last.teacher < 0.2 < first.teacher
    room = flat_generator(SMALL, classes=CLASSES, latent_dim=LATENT)
    room.load(state.vector)
    generator = room.parts[GENERATOR].eval()
    labels = torch.arange(CLASSES).repeat(50)
    with torch.no_grad():
        latents = generator(SMALL.draw(len(labels), torch.Generator().manual_seed(9)), labels)
    assert float(head()(latents, labels)) < 0.2


def test_the_step_is_torchs_adam() -> None:
    """Five steps of ours against five of `torch.optim.Adam` on the same module, noise and labels."""
    start = fresh()
    found, _ = one_round(start, 7)
    room = flat_generator(SMALL, classes=CLASSES, latent_dim=LATENT)
    room.load(start.vector)
    generator = room.parts[GENERATOR].train()
    optimiser = torch.optim.Adam(generator.parameters(), lr=1e-2, weight_decay=TRAINING.weight_decay)
    random = torch.Generator().manual_seed(7)
    drawn = torch.multinomial(torch.from_numpy(UNIFORM), 40, replacement=True, generator=random).view(5, 8)
    for labels in drawn:
        noise = SMALL.draw(8, random)
        latents = generator(noise, labels)
        optimiser.zero_grad()
        (head()(latents, labels) + diversity(noise, latents)).backward()
        optimiser.step()
    np.testing.assert_allclose(found.vector, room.vector(), rtol=1e-5, atol=1e-6)
    assert not np.allclose(found.vector, start.vector, atol=1e-3)


def test_equal_arguments_give_equal_bits_and_another_seed_does_not() -> None:
    assert same(one_round(fresh(), 3)[0], one_round(fresh(), 3)[0])
    assert not same(one_round(fresh(), 3)[0], one_round(fresh(), 4)[0])


def test_the_state_survives_its_arrays_and_the_round_after_is_the_same() -> None:
    state, _ = one_round(fresh(), 1)
    arrays = {name: np.array(values) for name, values in state.to_arrays().items()}
    restored = GeneratorState.from_arrays(arrays)
    assert same(restored, state)
    assert same(one_round(restored, 2)[0], one_round(state, 2)[0])
    # The moments matter: a generator that forgot them would go elsewhere.
    forgetful = GeneratorState.fresh(state.vector, state.first.size)
    assert not same(one_round(forgetful, 2)[0], one_round(state, 2)[0])


def test_training_leaves_the_state_it_was_given() -> None:
    state = fresh()
    before = {name: values.copy() for name, values in state.to_arrays().items()}
    one_round(state, 1)
    assert all(np.array_equal(before[name], values) for name, values in state.to_arrays().items())


def test_a_label_of_probability_zero_is_never_drawn() -> None:
    seen: set[int] = set()

    def watching(latents: Tensor, labels: Tensor) -> Tensor:
        seen.update(labels.tolist())
        return head()(latents, labels)

    one_round(fresh(), 0, teacher=watching, labels=np.array([0.5, 0.0, 0.5, 0.0]))
    assert seen == {0, 2}


def test_only_the_configured_weights_count() -> None:
    plain = GeneratorTraining(steps=5, batch_size=8, diversity=0.0, weight_decay=0.0)
    without, _ = one_round(fresh(), 1, training=plain)
    assert not same(without, one_round(fresh(), 1)[0])
    spread = GeneratorTraining(steps=5, batch_size=8, diversity=1.0, weight_decay=0.0)
    assert not same(without, one_round(fresh(), 1, training=spread)[0])


def test_a_generator_that_diverges_says_so() -> None:
    def explode(latents: Tensor, labels: Tensor) -> Tensor:
        return latents.square().sum() * float("inf")

    with pytest.raises(GeneratorDiverged, match="lower generator_lr"):
        one_round(fresh(), 0, teacher=explode)
