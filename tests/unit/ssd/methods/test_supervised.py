"""FedAvg, FedProx and what their base class promises to every method derived from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from ssd.data.images.source import ImageFormat, ProbeData, TensorImages
from ssd.data.images.subset import SubsetImages
from ssd.method.protocol import ClientEvaluationTask, EvaluationTask
from ssd.method.registry import load
from ssd.methods.self_supervised.training import TooFewImages, TrainingDiverged
from ssd.methods.supervised.base import Batch, Context, Loss, Supervised, SupervisedConfig, resolve
from ssd.models.classifier import head_skeleton
from ssd.models.registry import ModelConfig, skeleton
from ssd.settings import SettingsError
from ssd.updates.declaration import Declaration, Reducer
from training.supervised_samples import SMALL, build, digits, same, task_for, train

# ------------------------------------------------------------------------------------------------ what is declared


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_a_declaration_survives_json_and_builds_the_same_method_again(name: str) -> None:
    first = load(name, SMALL).declare()
    stored = Declaration.from_json(json.loads(json.dumps(first.to_json(), allow_nan=False)))
    assert stored.digest == first.digest
    assert load(name, stored.config).declare().digest == first.digest


def test_a_supervised_method_needs_labels_and_says_what_it_sends() -> None:
    declaration = build().declare()
    assert declaration.needs_labels
    assert declaration.client_evaluation
    assert not declaration.persists_client_state
    assert [g.name for g in declaration.groups] == ["backbone", "head", "buffers"]
    assert declaration.group("head").reducer is Reducer.WEIGHTED_MEAN
    assert declaration.group("buffers").reducer is Reducer.PLAIN_MEAN


@pytest.mark.parametrize(
    "changes",
    [
        {"head": "private"},
        {"buffers": "local"},
        {"batches": "stream"},
        {"lr_lag": True},
        {"head": "private", "buffers": "local"},
    ],
)
def test_a_result_carries_exactly_what_was_declared(changes: dict[str, Any]) -> None:
    method = build("fedprox", **changes)
    result, declaration = train(method), method.declare()
    assert result.delta.shape == (declaration.spec.size,)
    assert {name: value.shape for name, value in result.statistics.items()} == {
        statistic.name: statistic.shape for statistic in declaration.statistics
    }
    assert declaration.persists_client_state
    assert result.state


def test_the_network_of_fedgens_official_code_has_its_number_of_parameters() -> None:
    body = skeleton(ModelConfig(name="fedgen_cnn"), ImageFormat(size=28, channels=1))
    counts = [sum(p.numel() for p in module.parameters()) for module in (body, head_skeleton(32, 10))]
    assert (sum(counts), counts[1]) == (26_434, 330)


# ------------------------------------------------------------------------------------------------------- training


def test_training_on_labels_learns_them_and_evaluation_shows_it() -> None:
    method = build(local_epochs=8, momentum=0.9)
    base = method.initial(0, None)
    probe = ProbeData(train=digits(0, 600), test=digits(600, 900), name="digits")

    def accuracy(vector: np.ndarray[Any, np.dtype[np.float32]]) -> float:
        return method.evaluate(EvaluationTask(run_seed=0, version=1, vector=vector), probe)["accuracy"]

    result = train(method, digits(0, 600))
    assert accuracy(base) < 0.4
    assert accuracy(base + result.delta) > 0.75
    assert result.statistics["correct"] / result.statistics["images"] > 0.6


def test_one_full_batch_step_is_plain_gradient_descent() -> None:
    """Against autograd on modules that never saw a flat vector."""
    method = build(batch_size=64)
    base = method.initial(0, None)
    delta = train(method, base=base).delta
    parts = method.networks.parts()
    values = {t.name: torch.tensor(base[t.where]).view(t.shape) for t in method.declare().spec.tensors}
    for part, module in parts.items():
        module.load_state_dict(
            {n.removeprefix(f"{part}."): v for n, v in values.items() if n.startswith(part)}, strict=False
        )
        module.train()
    data = digits()
    logits = parts["head"](parts["backbone"](data.batch(range(40)) / 255.0))
    cross_entropy(logits, data.labels).backward()
    for tensor in method.declare().spec.tensors:
        part, _, path = tensor.name.partition(".")
        named = dict(parts[part].named_parameters())
        if path in named:
            expected = -0.05 * named[path].grad.numpy()  # type: ignore[union-attr]  # backward filled it
            assert np.allclose(delta[tensor.where].reshape(tensor.shape), expected, atol=2e-6), tensor.name


def test_equal_tasks_give_equal_bits_whatever_the_process_did_before() -> None:
    for changes in ({}, {"head": "private", "buffers": "local", "batches": "stream"}):
        method = build("fedprox", augment="crop_flip", **changes)
        first = train(method)
        other = train(method, digits(40, 90), client_id="client-001")
        assert same(train(method), first)
        assert same(train(build("fedprox", augment="crop_flip", **changes)), first)
        assert not np.array_equal(other.delta, first.delta)


def test_global_generators_are_untouched_from_building_to_training() -> None:
    before = torch.get_rng_state()
    train(build(augment="crop_flip", head="private"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("weighting", "weight"), [("images", 40), ("batches", 3), ("uniform", 1)])
def test_weights_count_images_or_batches_or_nothing(weighting: str, weight: int) -> None:
    assert train(build(weighting=weighting, local_epochs=2)).weight == weight


def test_local_steps_count_mini_batches_over_as_many_passes_as_needed() -> None:
    statistics = train(build(local_steps=7)).statistics
    assert statistics["batches"] == 7
    assert statistics["images"] == 2 * 40 + 16


def test_a_client_with_fewer_images_than_a_batch_trains_on_all_it_has() -> None:
    statistics = train(build(local_steps=3, drop_last=True), digits(0, 5)).statistics
    assert (statistics["batches"], statistics["images"]) == (3, 15)
    with pytest.raises(TooFewImages):
        train(build(), digits(0, 1))


def test_a_label_that_nobody_holds_is_no_obstacle() -> None:
    data = digits(0, 200)
    assert data.labels is not None
    rest = SubsetImages(data, torch.flatten(torch.nonzero(data.labels != 3)).tolist())
    assert np.isfinite(train(build(local_epochs=2), rest).delta).all()
    assert np.isfinite(train(build(classes=12), rest).delta).all()


class _Recording(Supervised[SupervisedConfig]):
    """Remembers which images a visit saw."""

    def loss(self, batch: Batch, context: Context) -> Loss:
        self.seen.append(batch.images.sum(dim=(1, 2, 3)).round().to(torch.int64).tolist())
        return super().loss(batch, context)

    def begin(self, context: Context) -> None:
        self.seen: list[list[int]] = []


def recording(**changes: Any) -> _Recording:
    return _Recording("recording", 1, resolve(SupervisedConfig, {**SMALL, **changes}))


def numbered(count: int) -> TensorImages:
    """Image i sums to i, once it is divided by 255."""
    images = torch.zeros(count, 1, 8, 8, dtype=torch.uint8)
    for number in range(count):
        images.view(count, -1)[number, :number] = 255
    return TensorImages(images, torch.arange(count) % 10)


def test_a_stream_sees_every_image_once_before_it_sees_one_twice() -> None:
    method = recording(batches="stream", local_steps=2, batch_size=4)
    source, state, seen = numbered(20), {}, []
    for number in range(1, 6):
        result = train(method, source, round=number, state=state)
        state = result.state
        seen += method.seen
    assert sorted(chain.from_iterable(seen[:5])) == list(range(20))
    assert sorted(chain.from_iterable(seen[5:])) == list(range(20))
    assert seen[:5] != seen[5:]
    assert state["cursor"].tolist() == [2, 0]


def test_a_stream_survives_a_client_whose_images_became_fewer() -> None:
    method = recording(batches="stream", local_steps=3, batch_size=4)
    state = train(method, numbered(20)).state
    train(method, numbered(9), round=2, state=state)
    assert [len(batch) for batch in method.seen] == [4, 4, 4]


def test_a_lagging_rate_is_that_of_the_round_in_which_the_client_last_took_part() -> None:
    schedule = {"kind": "exponential", "start": 0.4, "rate": 0.5}
    method, plain = build(lr=schedule, lr_lag=True), build(lr=schedule)
    state: Mapping[str, Any] = {}
    for number, rate, used in ((3, 0.1, 0.4), (5, 0.025, 0.1), (6, 0.0125, 0.025)):
        lagging = train(method, round=number, values={"lr": rate}, state=state)
        assert np.array_equal(lagging.delta, train(plain, round=number, values={"lr": used}).delta)
        state = lagging.state
    assert method.declare().persists_client_state
    assert not plain.declare().persists_client_state


def test_fresh_batches_begin_anew_in_every_round() -> None:
    method = recording(local_steps=2, batch_size=4)
    first = train(method, numbered(20))
    before = method.seen
    train(method, numbered(20), round=2)
    assert first.state == {}
    assert method.seen != before


def test_images_are_normalised_in_training_and_in_evaluation() -> None:
    plain = recording(batch_size=64)
    train(plain, numbered(20))
    scaled = recording(batch_size=64, normalise={"mean": [0.5], "std": [0.5]})
    train(scaled, numbered(20))
    assert [2 * value - 64 for value in plain.seen[0]] == scaled.seen[0]


# ---------------------------------------------------------------------------------------------------- private parts


def test_a_private_head_is_not_in_the_vector_and_persists() -> None:
    method = build(head="private")
    assert [g.name for g in method.declare().groups] == ["backbone", "buffers"]
    assert not [t.name for t in method.declare().spec.tensors if t.name.startswith("head")]
    first = train(method)
    assert first.state["private"].shape == (16 * 10 + 10,)
    second = train(method, state=first.state, round=2)
    forgotten = train(method, round=2)
    assert not np.array_equal(second.state["private"], forgotten.state["private"])


def test_a_new_clients_head_follows_its_identity_and_the_runs_seed() -> None:
    def head(**changes: Any) -> np.ndarray[Any, np.dtype[np.generic]]:
        return train(build(head="private"), values={"lr": 0.0}, **changes).state["private"]

    assert np.array_equal(head(), head(round=7))
    assert not np.array_equal(head(), head(client_id="client-001"))
    assert not np.array_equal(head(), head(run_seed=6))


def test_a_client_is_measured_with_its_own_head_and_its_own_statistics() -> None:
    method = build(head="private", buffers="local", local_epochs=8, momentum=0.9)
    base, result = method.initial(0, None), train(method, digits(0, 600))

    def correct(state: Mapping[str, np.ndarray[Any, np.dtype[np.generic]]]) -> float:
        task = ClientEvaluationTask(
            run_seed=5, version=1, client_id="client-000", vector=base + result.delta, state=state
        )
        values = method.evaluate_client(task, digits(0, 600), digits(600, 700))
        assert values["images"] == 100
        return values["correct"]

    assert correct(result.state) > 75
    assert correct({}) < 40
    assert correct(result.state) == correct(result.state)


def test_what_stays_on_clients_is_not_evaluated_at_the_server() -> None:
    method = build(head="private")
    probe = ProbeData(train=digits(0, 100), test=digits(100, 150), name="digits")
    values = method.evaluate(EvaluationTask(run_seed=0, version=1, vector=method.initial(0, None)), probe)
    assert "accuracy" not in values
    assert 0.0 < values["linear_probe_all"] <= 1.0


@pytest.mark.parametrize("buffers", ["averaged", "local"])
def test_evaluation_changes_nothing_that_training_sees(buffers: str) -> None:
    method = build(buffers=buffers, representation=True)
    first = train(method)
    probe = ProbeData(train=digits(0, 100), test=digits(100, 150), name="digits")
    values = method.evaluate(EvaluationTask(run_seed=0, version=1, vector=method.initial(0, None)), probe)
    assert {"accuracy", "test_loss", "knn_all", "effective_rank"} <= set(values)
    assert same(train(method), first)


# --------------------------------------------------------------------------------------------------------- FedProx


def test_fedprox_of_strength_zero_is_fedavg_bit_for_bit() -> None:
    settings = {"augment": "crop_flip", "local_epochs": 2, "momentum": 0.9, "weight_decay": 1e-3}
    assert same(train(build("fedprox", mu=0.0, **settings)), train(build(**settings)))


def test_the_proximal_term_holds_the_model_near_what_was_received() -> None:
    def distance(mu: float) -> float:
        delta = train(build("fedprox", mu=mu, local_epochs=5)).delta
        return float(np.square(delta[: 16 * 10]).sum())

    assert distance(10.0) < distance(1.0) < distance(0.01)


@pytest.mark.parametrize("head", ["shared", "private"])
def test_the_proximal_terms_gradient_is_mu_times_the_way_gone_for_what_travels(head: str) -> None:
    method = build("fedprox", mu=0.5, head=head)
    state, device = method._state(0, "client-000", {}), torch.device("cpu")
    flat = method.networks.load("student", device, method.initial(0, None), state)
    labels = digits().labels
    assert labels is not None
    context = method._context(task_for(method), labels, flat, state, device)
    flat.trainable.add_(0.25)
    batch = Batch(digits().batch(range(8)) / 255.0, labels[:8])
    with_term, without = method.loss(batch, context), Supervised.loss(method, batch, context)
    torch.autograd.backward(with_term.value)
    gradient = flat.gradient().clone()
    flat.clear_gradient()
    torch.autograd.backward(without.value)
    expected = torch.zeros_like(gradient)
    expected[flat.shared] = 0.5 * 0.25
    assert torch.allclose(gradient - flat.gradient(), expected, atol=1e-4)
    distance = with_term.terms["proximal"].item()
    assert distance == pytest.approx(0.0625 * float(expected.count_nonzero()), rel=1e-4)


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("name", "config", "mistakes"),
    [
        ("fedavg", {"lrr": 0.1}, ["no key 'lrr'; did you mean lr?"]),
        ("fedavg", {"mu": 0.1}, ["mu"]),
        ("fedprox", {"mu": -1.0}, ["mu must not be negative"]),
        ("fedavg", {"lr": {"kind": "cosin"}}, ["unknown kind 'cosin'"]),
        ("fedavg", {"classes": 1}, ["classes must be at least 2"]),
        ("fedavg", {"local_steps": 0}, ["local_steps must be at least 1"]),
        (
            "fedavg",
            {"normalise": {"mean": [0.1, 0.2], "std": [1.0, 1.0]}},
            ["2 values, the images 1 channels"],
        ),
        ("fedavg", {"normalise": {"std": [0.0]}}, ["std must be positive"]),
        ("fedavg", {"head": "own"}, ["config.head: must be 'shared' or 'private', not 'own'"]),
        ("fedavg", {"model": {"name": "fedgen_cnn", "width": 4}}, ["no width"]),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_mistake_named(
    name: str, config: dict[str, Any], mistakes: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        build(name, **config)
    for mistake in mistakes:
        assert mistake in str(caught.value)


def test_images_without_labels_or_with_too_many_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="needs labels"):
        train(build(), TensorImages(torch.zeros(4, 1, 8, 8, dtype=torch.uint8)))
    with pytest.raises(ValueError, match="set `classes`"):
        train(build(classes=5))
    with pytest.raises(ValueError, match="configured for"):
        train(build(), TensorImages(torch.zeros(4, 3, 8, 8, dtype=torch.uint8)))


def test_divergence_has_an_error_of_its_own() -> None:
    with pytest.raises(TrainingDiverged, match=r"client-000.*round 1.*learning rate"):
        train(build(), values={"lr": 1e30})


def test_an_exported_backbone_starts_another_run(tmp_path: Path) -> None:
    from ssd.export.encoder_file import encoder_metadata, load_encoder, write_encoder

    method = build(head="private")
    vector = method.initial(0, None) + train(method).delta
    path = tmp_path / "encoder.safetensors"
    write_encoder(path, method.export(vector), encoder_metadata(method.declare().config))
    load_encoder(path)
    warm = build().initial(9, path)
    for tensor in build().declare().spec.tensors:
        if tensor.name.startswith("backbone."):
            places = {t.name: t for t in method.declare().spec.tensors}
            assert np.array_equal(warm[tensor.where], vector[places[tensor.name].where])
