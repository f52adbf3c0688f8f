"""Backbone self-distillation and training alone: methods whose clients keep a model, or a part of it, to themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssd.method.protocol import ClientEvaluationTask
from ssd.method.registry import load
from ssd.methods.supervised.backbone_distillation import BackboneDistillationConfig, backbone_loss
from ssd.settings import SettingsError
from ssd.updates.declaration import Declaration
from training.supervised_samples import SMALL, build, digits, same, task_for, train

DISTILLATION = "backbone_distillation"


@pytest.mark.parametrize("name", [DISTILLATION, "local_only"])
def test_a_declaration_survives_json_and_says_that_clients_keep_something(name: str) -> None:
    first = load(name, SMALL).declare()
    stored = Declaration.from_json(json.loads(json.dumps(first.to_json(), allow_nan=False)))
    assert load(name, stored.config).declare().digest == first.digest
    assert first.persists_client_state


# ------------------------------------------------------------------------------------------------ self-distillation


@pytest.mark.parametrize("restart", ["R1", "R2"])
def test_without_its_term_and_with_a_shared_head_it_is_fedavg_bit_for_bit(restart: str) -> None:
    """R2 only in a client's first round: later it goes on from its own model."""
    settings = {"local_epochs": 2, "augment": "crop_flip", "momentum": 0.9, "weight_decay": 1e-3}
    bare = build(DISTILLATION, strength=0.0, head="shared", weighting="images", restart=restart, **settings)
    result, expected = train(bare), train(build(**settings))
    assert np.array_equal(result.delta, expected.delta)
    assert result.statistics == expected.statistics
    assert result.weight == expected.weight


def test_its_mean_is_plain_and_its_head_private_by_default() -> None:
    method = build(DISTILLATION)
    assert train(method, digits(0, 37)).weight == 1
    assert [group.name for group in method.declare().groups] == ["backbone", "buffers"]


def test_the_divergence_is_that_of_teacher_from_student() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 6, 5, generator=generator)
    p, q = (torch.softmax(features / 2.0, dim=1).double() for features in (teacher, student))
    config = BackboneDistillationConfig(temperature=2.0)
    expected = float((p * (p / q).log()).sum(dim=1).mean())
    assert float(backbone_loss(teacher, student, config)) == pytest.approx(expected, rel=1e-5)
    squared = backbone_loss(teacher, student, BackboneDistillationConfig(divergence="l2"))
    assert float(squared) == pytest.approx(float(((teacher - student) ** 2).sum() / 6), rel=1e-5)
    assert float(backbone_loss(student, student, config)) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("divergence", ["kl", "l2"])
def test_the_term_keeps_features_near_the_teachers(divergence: str) -> None:
    def distance(strength: float) -> float:
        settings = {"divergence": divergence, "local_epochs": 8, "momentum": 0.9}
        statistics = train(build(DISTILLATION, strength=strength, **settings)).statistics
        return float(statistics["distillation_sum"] / statistics["batches"])

    assert distance(3.0) < 0.8 * distance(1e-6)


def test_the_teacher_is_the_received_model_and_stays_as_it_was() -> None:
    method = build(DISTILLATION)
    state, device = method._state(5, "client-000", {}), torch.device("cpu")
    base = method.initial(0, None)
    flat = method.networks.load("student", device, base, state)
    labels = digits().labels
    assert labels is not None
    context = method._context(task_for(method), labels, flat, state, device)
    images = digits().batch(range(8)) / 255.0
    context.model.backbone.eval()
    with torch.no_grad():
        expected = context.model.features(images)
        flat.trainable.add_(0.1)
        context.model.backbone.train()
        context.model.features(images)
        teacher = context.teacher()
        assert torch.equal(teacher.features(images), expected)
    assert not teacher.backbone.training
    assert not any(p.requires_grad for p in (*teacher.backbone.parameters(), *teacher.head.parameters()))
    assert context.teacher() is teacher


def test_r1_starts_from_what_was_received_and_r2_from_the_clients_own_backbone() -> None:
    received = build(DISTILLATION).initial(9, None)
    after = {}
    for restart in ("R1", "R2"):
        method = build(DISTILLATION, restart=restart)
        first = train(method)
        assert ("model" in first.state) == (restart == "R2")
        second = train(method, state=first.state, round=2, base=received, values={"lr": 0.0})
        after[restart] = received + second.delta
        if restart == "R2":
            parameters = method.declare().spec.groups["backbone"]
            assert np.array_equal(second.state["model"][parameters], first.state["model"][parameters])
            assert np.allclose(after["R2"][parameters], first.state["model"][parameters], atol=1e-6)
    parameters = build(DISTILLATION).declare().spec.groups["backbone"]
    assert np.array_equal(after["R1"][parameters], received[parameters])


def test_alternating_training_moves_the_head_first_and_then_the_backbone() -> None:
    """With one pass for the head and the smallest visit for the backbone the numbers of steps say which is which."""
    settings = {"weight_decay": 0.1, "strength": 0.0, "local_steps": 1}
    method = build(DISTILLATION, training="alternating", head_epochs=2, **settings)
    result = train(method)
    assert result.statistics["batches"] == 2 * 3 + 1
    state = method._state(5, "client-000", {})
    model = method.networks.load("student", torch.device("cpu"), method.initial(0, None), state)
    phases = method.phases(model, 40)
    assert [phase.where for phase in phases] == [model.where("head"), model.where("backbone")]
    only_head = build(DISTILLATION, training="alternating", **settings)
    only_head.phases = lambda model, count: method.phases(model, count)[:1]  # type: ignore[method-assign]
    untouched = train(only_head)
    backbone = method.declare().spec.groups["backbone"]
    assert not untouched.delta[backbone].any()  # not even by weight decay
    assert np.array_equal(untouched.state["private"], result.state["private"])
    assert result.delta[backbone].any()


@pytest.mark.parametrize(
    ("config", "mistake"),
    [
        ({"strength": -1.0}, "strength must not be negative"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"head_epochs": 0}, "head_epochs must be at least 1"),
        ({"restart": "R3"}, "must be 'R1' or 'R2', not 'R3'"),
        ({"lambda": 1.0}, "lambda"),
    ],
)
def test_impossible_settings_are_refused(config: dict[str, Any], mistake: str) -> None:
    with pytest.raises(SettingsError, match=mistake):
        build(DISTILLATION, **config)


# --------------------------------------------------------------------------------------------------------- alone


def test_a_client_alone_goes_on_from_its_own_model_whatever_it_receives() -> None:
    method = build("local_only", momentum=0.9)
    first = train(method)
    mine = train(method, state=first.state, round=2)
    foreign = train(method, state=first.state, round=2, base=method.initial(9, None))
    assert np.array_equal(mine.state["model"], foreign.state["model"])
    assert mine.statistics == foreign.statistics
    assert not np.array_equal(mine.state["model"], first.state["model"])


def test_its_first_round_is_fedavgs() -> None:
    method = build("local_only")
    base = method.initial(5, None)  # the run's seed
    assert np.array_equal(train(method, base=base).delta, train(build(), base=base).delta)


def test_a_client_that_joins_late_starts_where_the_others_did() -> None:
    method = build("local_only")
    late = train(method, round=7, base=method.initial(9, None), values={"lr": 0.0})
    parameters = slice(0, method.declare().spec.groups["buffers"].start)
    assert np.array_equal(late.state["model"][parameters], method.initial(5, None)[parameters])


def test_only_clients_with_a_model_of_their_own_are_measured() -> None:
    method = build("local_only", local_epochs=8, momentum=0.9)
    state = train(method, digits(0, 600)).state
    task = ClientEvaluationTask(
        run_seed=5, version=1, client_id="client-000", vector=method.initial(9, None), state=state
    )
    values = method.evaluate_client(task, digits(0, 600), digits(600, 700))
    assert values["images"] == 100
    assert values["correct"] > 75
    stateless = ClientEvaluationTask(run_seed=5, version=1, client_id="new", vector=task.vector)
    assert method.evaluate_client(stateless, digits(), digits()) == {}


def test_nobody_starts_warm_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no warm start"):
        build("local_only").initial(0, tmp_path / "encoder.safetensors")


# ------------------------------------------------------------------------------------------------- moving a client


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("fedavg", {"head": "private", "buffers": "local", "batches": "stream"}),
        (DISTILLATION, {"restart": "R2", "buffers": "local", "batches": "stream", "training": "alternating"}),
        ("local_only", {"batches": "stream"}),
    ],
)
def test_state_is_all_a_client_needs_to_go_on_elsewhere(name: str, changes: dict[str, Any]) -> None:
    """What the first process kept in memory must not matter."""
    here, elsewhere = build(name, **changes), build(name, **changes)
    state = train(here).state
    stored = {key: np.array(values) for key, values in state.items()}
    assert same(train(here, state=state, round=2), train(elsewhere, state=stored, round=2))
