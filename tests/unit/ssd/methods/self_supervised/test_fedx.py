"""FedX: the relational term against its definition, the frozen model, the anchors, and the method."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ssd.losses.alignment import alignment
from ssd.losses.presets import AlignUniformLosses
from ssd.losses.relational import relational
from ssd.losses.uniformity import uniformity
from ssd.methods.self_supervised import fed_align_uniform, fedx
from ssd.methods.self_supervised.fedx import PARTS, FedXOptions, TwoLevelDistillation
from ssd.methods.self_supervised.terms import Step
from ssd.methods.self_supervised.training import Seeds
from ssd.settings import SettingsError
from training.training_samples import SMALL, digits, silent, task_for, train

N, A, D = 6, 4, 5


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shares(row: np.ndarray, anchors: np.ndarray, temperature: float) -> list[float]:
    cosines = [float(row @ a) / math.sqrt(float(row @ row) * float(a @ a)) for a in anchors]
    powers = [math.exp(c / temperature) for c in cosines]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_relational_term_equals_its_definition(temperature: float) -> None:
    first, second, anchors = random(N, D, seed=1), random(N, D, seed=2), random(A, D, seed=3)
    total = 0.0
    for a, b in zip(first.numpy(), second.numpy(), strict=True):
        p, q = (shares(row, anchors.numpy(), temperature) for row in (a, b))
        for x, y in zip(p, q, strict=True):
            middle = (x + y) / 2
            total += (middle * math.log(middle / x) + middle * math.log(middle / y)) / 2
    value = float(relational(first, second, anchors, temperature))
    assert value == pytest.approx(total / N, rel=1e-9)
    assert float(relational(second, first, anchors, temperature)) == pytest.approx(value)


def test_equal_views_have_nothing_to_learn_from_each_other() -> None:
    first, anchors = random(N, D, seed=4), random(A, D, seed=5)
    assert float(relational(first, 3.0 * first, anchors, 0.1)) == pytest.approx(0.0, abs=1e-12)


def test_gradcheck_of_the_relational_term() -> None:
    inputs = [random(rows, D, seed=6 + i).requires_grad_() for i, rows in enumerate((N, N, A))]
    assert torch.autograd.gradcheck(lambda a, b, c: relational(a, b, c, 0.5), tuple(inputs))


def term(method: fedx.FedX, **changes: object) -> tuple[TwoLevelDistillation, torch.nn.Module]:
    task = task_for(method, **changes)
    model = method._model(torch.device("cpu"))
    model.load(task.base)
    (made,) = method._terms(task, model)
    assert isinstance(made, TwoLevelDistillation)
    return made, model.parts["predictor"]


def test_each_part_is_the_term_its_name_says() -> None:
    method = fedx.create({**SMALL, "losses": {"beta": 0.7}})
    made, predictor = term(method)
    pictures = digits(0, 3 * N).batch(range(3 * N)) / 255.0
    z = [random(N, 16, seed=seed).float() for seed in (10, 11, 12)]
    step = Step(views=pictures, representations=(z[0], z[1]), embeddings=(z[0], z[1]), anchors=z[2])
    parts = made.parts(step)
    with torch.no_grad():
        taught = made.teacher.parts["projector"](made.teacher.parts["encoder"](pictures))
        p1, p2 = predictor(z[0]), predictor(z[1])
    losses = AlignUniformLosses()
    contrast = alignment(p1, taught[N : 2 * N], losses.alignment) + 0.7 * uniformity(p1, losses.uniformity)
    assert float(parts["relation_local"].detach()) == pytest.approx(float(relational(*z, 0.1)), rel=1e-5)
    expected = float(relational(p1, p2, taught[2 * N :], 0.1))
    assert float(parts["relation_global"].detach()) == pytest.approx(expected, rel=1e-4)
    assert float(parts["contrast_global"].detach()) == pytest.approx(float(contrast), rel=1e-5)


def test_the_frozen_model_is_the_received_one_in_evaluation_mode_and_stays_so() -> None:
    method = fedx.create(SMALL)
    base = method.initial(0, None)
    made, _ = term(method)
    model = method._model(torch.device("cpu"))
    train(method)
    assert not np.array_equal(model.vector(), base)
    assert np.array_equal(made.teacher.vector(), base), "neither training nor its statistics reached it"
    assert not any(module.training for part in made.teacher.parts.values() for module in part.modules())
    term(method, base=method.initial(3, None))
    assert np.array_equal(made.teacher.vector(), method.initial(3, None))


def test_no_gradient_reaches_the_frozen_model_and_one_reaches_the_predictor() -> None:
    method = fedx.create(SMALL)
    made, predictor = term(method)
    pictures = digits(0, 3 * N).batch(range(3 * N)) / 255.0
    z = [random(N, 16, seed=seed).float().requires_grad_() for seed in (20, 21, 22)]
    step = Step(views=pictures, representations=(z[0], z[1]), embeddings=(z[0], z[1]), anchors=z[2])
    sum(made.parts(step).values()).backward()
    assert all(p.grad is None for part in made.teacher.parts.values() for p in part.parameters())
    assert all(p.grad is not None and bool(p.grad.any()) for p in predictor.parameters())
    assert all(each.grad is not None for each in z)


def test_anchors_are_a_permutation_of_their_own_and_every_epoch_another() -> None:
    seeds = Seeds(run_seed=7, round=3, client_id="client-000")
    orders = [seeds.anchor_order(0, 50), seeds.anchor_order(1, 50), seeds.order(0, 50)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_anchors_leave_the_views_and_the_order_of_images_as_they_were() -> None:
    """So that runs of FedX and of its base differ by the method alone."""
    seen: dict[str, list[torch.Tensor]] = {"fedx": [], "base": []}
    for name, method in (("fedx", fedx.create(SMALL)), ("base", fed_align_uniform.create(SMALL))):
        pair = method._views.pair

        def watched(images: torch.Tensor, generator: torch.Generator, *, into=seen[name], draw=pair):
            into.append(draw(images, generator))
            return into[-1]

        method._views.pair = watched  # type: ignore[method-assign]  # a spy in front of the real one
        method.train(task_for(method), digits(), silent)
    assert len(seen["base"]) == 2
    assert all(torch.equal(a, b) for a, b in zip(seen["fedx"], seen["base"], strict=True))


def test_the_reported_loss_is_the_weighted_sum_of_its_parts() -> None:
    method = fedx.create({**SMALL, "fedx": {"relation_global": 0.5, "contrast_global": 0.25}})
    sums = train(method).statistics
    expected = sums["alignment_sum"] + sums["uniformity_sum"] + sums["relation_local_sum"]
    expected = expected + 0.5 * sums["relation_global_sum"] + 0.25 * sums["contrast_global_sum"]
    assert float(sums["loss_sum"]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_can_be_left_out_alone_and_matters(part: str) -> None:
    whole, without = train(fedx.create(SMALL)), train(fedx.create({**SMALL, "fedx": {part: 0}}))
    assert not np.array_equal(whole.delta, without.delta)


def test_the_predictor_travels_and_is_not_taken_home() -> None:
    method = fedx.create(SMALL)
    declaration = method.declare()
    assert [g.name for g in declaration.groups] == ["encoder", "projector", "predictor", "buffers"]
    result = train(method)
    assert result.delta[declaration.spec.groups["predictor"]].any()
    base_export = fed_align_uniform.create(SMALL)
    assert set(method.export(method.initial(0, None))) == set(
        base_export.export(base_export.initial(0, None))
    )


@pytest.mark.parametrize("extra", [{"buffers": "local"}, {"projector": None}, {"start": "own"}])
def test_it_trains_in_every_setting_of_the_family(extra: dict[str, object]) -> None:
    method = fedx.create({**SMALL, **extra})
    first = train(method)
    second = train(method, round=2, state=first.state)
    assert np.isfinite(first.delta).all()
    assert np.isfinite(second.delta).all()
    assert np.array_equal(train(method).delta, first.delta)


def test_the_target_may_have_a_temperature_of_its_own() -> None:
    draw = np.random.default_rng(3).standard_normal
    first, second, anchors = (torch.tensor(draw((5, 4))) for _ in range(3))
    cosines = [
        torch.nn.functional.normalize(view, dim=1) @ torch.nn.functional.normalize(anchors, dim=1).T
        for view in (first, second)
    ]
    target = sum((each / 0.01).softmax(1) for each in cosines) / 2
    pulled = [
        torch.nn.functional.kl_div((each / 0.1).log_softmax(1), target, reduction="batchmean")
        for each in cosines
    ]
    assert float(relational(first, second, anchors, 0.1, 0.01)) == pytest.approx(float(sum(pulled)) / 2)
    assert float(relational(first, second, anchors, 0.1, 0.1)) == float(
        relational(first, second, anchors, 0.1)
    )
    with pytest.raises(SettingsError, match="target_temperature must be positive"):
        fedx.create({**SMALL, "fedx": {"target_temperature": 0.0}})


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(SettingsError, match="temperature"):
        fedx.create({**SMALL, "fedx": {"temperature": 0}})
    assert FedXOptions().temperature == 0.1
