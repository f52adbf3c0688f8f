"""SSD and FedAlignUniform through the method protocol, as a worker and the method host use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssd.data.images.source import ProbeData, TensorImages
from ssd.method.protocol import EvaluationTask
from ssd.method.registry import load
from ssd.methods.self_supervised import fed_align_uniform, ssd
from ssd.methods.self_supervised.base import AlignUniform
from ssd.methods.self_supervised.config import SsdConfig, resolve
from ssd.methods.self_supervised.training import TooFewImages, TrainingDiverged
from ssd.scaling import ScalingVector
from ssd.settings import SettingsError
from ssd.updates.declaration import Declaration, Reducer
from training.training_samples import SMALL, digits, silent, task_for, train


@pytest.mark.parametrize("name", ["ssd", "fed_align_uniform"])
def test_a_declaration_survives_json_and_builds_the_same_method_again(name: str) -> None:
    first = load(name, SMALL).declare()
    stored = Declaration.from_json(json.loads(json.dumps(first.to_json(), allow_nan=False)))
    assert stored.digest == first.digest
    assert load(name, stored.config).declare().digest == first.digest


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("fed_align_uniform", "85dfccbf47b0cbb65147abc804159f8b854b7b8b31ddd78b6d97ae7320c3bb13"),
        ("ssd", "8057c12775a51abebdf5c04013d0b4c1f2426f14c6a8d19806f6707177a4b87d"),
    ],
)
def test_settings_that_came_later_leave_the_declaration_of_a_run_that_goes_on_as_it_was(
    name: str, digest: str
) -> None:
    assert load(name, {}).declare().digest == digest
    later = {"forward": "apart", "initialisation": "torch", "views": {"preset": "official", "snap": True}}
    changed = load(name, later).declare()
    assert changed.digest != digest
    assert changed.config["views"]["snap"] is True
    assert load(name, changed.config).declare().digest == changed.digest


def test_statistics_of_batch_normalisation_are_a_group_with_a_treatment_of_its_own() -> None:
    declaration = ssd.create(SMALL).declare()
    assert [g.name for g in declaration.groups] == ["encoder", "projector", "buffers"]
    buffers = declaration.group("buffers")
    assert (buffers.reducer, buffers.compress, buffers.optimise) == (Reducer.WEIGHTED_MEAN, False, False)
    for name in ("encoder", "projector"):
        group = declaration.group(name)
        assert (group.reducer, group.compress, group.optimise) == (Reducer.WEIGHTED_MEAN, True, True)


def test_ssd_declares_its_scaling_vectors_and_its_basis() -> None:
    official, paper = ssd.create(SMALL).declare(), ssd.create({**SMALL, "preset": "paper"}).declare()
    for declaration in (official, paper):
        assert declaration.scaling is not None
        assert (declaration.scaling.dimension, declaration.scaling.alpha) == (16, 10.0)
    assert official.artefacts == ("basis",)
    assert paper.artefacts == ()


def test_the_basis_is_orthonormal_and_of_the_embeddings_size() -> None:
    basis = ssd.create({**SMALL, "projector": {"out_dim": 6}, "losses": {"delta": 0}}).artefacts(3)["basis"]
    assert basis.shape == (6, 6)
    assert np.allclose(basis @ basis.T, np.eye(6), atol=1e-5)


def test_ssd_without_its_regulariser_needs_neither_vector_nor_basis() -> None:
    method = ssd.create({**SMALL, "losses": {"gamma": 0}})
    declaration = method.declare()
    assert declaration.scaling is None
    assert declaration.artefacts == ()
    train(method)


def test_without_its_two_terms_ssd_is_fed_align_uniform_bit_for_bit() -> None:
    bare = train(ssd.create({**SMALL, "losses": {"gamma": 0, "delta": 0}}))
    base = train(fed_align_uniform.create(SMALL))
    assert np.array_equal(bare.delta, base.delta)
    assert base.statistics["loss_sum"] == bare.statistics["loss_sum"]


@pytest.mark.parametrize("preset", ["official", "paper", "paper_literal"])
def test_every_preset_trains_and_they_differ(preset: str) -> None:
    result = train(ssd.create({**SMALL, "preset": preset}))
    assert np.isfinite(result.delta).all()
    if preset != "official":
        assert not np.array_equal(result.delta, train(ssd.create(SMALL)).delta)


def test_equal_tasks_give_equal_bits_whatever_the_process_did_before() -> None:
    """A worker hosts many clients on one model: a visit in between must leave no trace."""
    method = ssd.create(SMALL)
    first = train(method)
    other = train(method, digits(40, 90), client_id="client-001")
    again = train(method)
    elsewhere = train(ssd.create(SMALL))
    for result in (again, elsewhere):
        assert np.array_equal(result.delta, first.delta)
        assert result.statistics == first.statistics
    assert not np.array_equal(other.delta, first.delta)


def test_training_follows_its_seeds_its_vector_and_its_rate() -> None:
    method = ssd.create(SMALL)
    plain = train(method).delta
    for changes in (
        {"run_seed": 6},
        {"round": 2},
        {"client_id": "client-001"},
        {"values": {"lr": 0.01}},
        {"scaling": ScalingVector(16, (2, 3), 10.0)},
    ):
        assert not np.array_equal(train(method, **changes).delta, plain)


def test_global_generators_are_untouched_from_building_to_training() -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    train(ssd.create(SMALL))
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_a_result_carries_exactly_what_was_declared() -> None:
    for name in ("ssd", "fed_align_uniform"):
        method = load(name, SMALL)
        assert isinstance(method, AlignUniform)
        result, declaration = train(method), method.declare()
        assert result.delta.dtype == np.float32
        assert result.delta.shape == (declaration.spec.size,)
        assert set(result.statistics) == {s.name for s in declaration.statistics}
        for statistic in declaration.statistics:
            assert result.statistics[statistic.name].shape == statistic.shape
            assert result.statistics[statistic.name].dtype == np.float64
        assert result.state == {}


def test_the_base_is_only_read() -> None:
    method = ssd.create(SMALL)
    base = method.initial(0, None)
    before = base.copy()
    base.flags.writeable = False
    train(method, base=base)
    assert np.array_equal(base, before)


@pytest.mark.parametrize(("weighting", "weight"), [("batches", 3), ("images", 40)])
def test_weights_count_batches_or_images(weighting: str, weight: int) -> None:
    method = ssd.create({**SMALL, "weighting": weighting, "drop_last": False, "local_epochs": 2})
    assert train(method).weight == weight


def test_local_statistics_stay_with_the_client_and_continue() -> None:
    method = ssd.create({**SMALL, "buffers": "local"})
    declaration = method.declare()
    assert declaration.persists_client_state
    assert [g.name for g in declaration.groups] == ["encoder", "projector"]
    first = train(method)
    assert set(first.state) == {"buffers"}
    assert first.state["buffers"].dtype == np.float32
    second = train(method, state=first.state, round=2)
    assert not np.array_equal(second.state["buffers"], first.state["buffers"])
    assert np.array_equal(train(method).state["buffers"], first.state["buffers"])


def test_an_encoder_can_be_trained_without_a_projector() -> None:
    method = ssd.create({**SMALL, "projector": None, "losses": {"delta": 0}})
    declaration = method.declare()
    assert [g.name for g in declaration.groups] == ["encoder", "buffers"]
    assert declaration.scaling is not None
    assert declaration.scaling.dimension == 16
    train(method)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": {}}, "learning rate"),
        ({"scaling": None}, "scaling vector"),
        ({"scaling": ScalingVector(8, (1,), 10.0)}, "8 dimensions"),
        ({"artefacts": {}}, "artefact 'basis'"),
        ({"base": np.zeros(3, dtype=np.float32)}, "values"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(ssd.create(SMALL), **changes)


def test_images_of_another_format_are_refused() -> None:
    with pytest.raises(ValueError, match="configured for"):
        train(ssd.create(SMALL), TensorImages(torch.zeros(4, 3, 8, 8, dtype=torch.uint8)))
    with pytest.raises(TypeError, match="source of images"):
        ssd.create(SMALL).train(task_for(ssd.create(SMALL)), None, silent)


def test_too_few_images_and_divergence_have_errors_of_their_own() -> None:
    with pytest.raises(TooFewImages):
        train(ssd.create(SMALL), digits(0, 1))
    with pytest.raises(TrainingDiverged):
        train(ssd.create(SMALL), values={"lr": 1e30})


def test_training_learns_representations_that_few_labels_can_use() -> None:
    """Untrained about 0.55; 15 epochs on 600 digits must clearly beat it."""
    method = ssd.create({**SMALL, "model": {"name": "small", "feature_dim": 32, "width": 16}, "local_epochs": 15,
                         "batch_size": 64, "losses": {"uniformity": {"t": 1.0}}})  # fmt: skip
    probe = ProbeData(train=digits(0, 600), test=digits(600, 1000), name="digits")
    before = method.initial(0, None)
    delta = train(method, digits(0, 600)).delta

    def score(vector: np.ndarray[Any, np.dtype[np.float32]]) -> float:
        task = EvaluationTask(run_seed=0, version=0, vector=vector, options={"quality_samples": 100})
        return method.evaluate(task, probe)["linear_probe_2_per_class"]

    assert score(before + delta) > score(before) + 0.1


@pytest.mark.parametrize("buffers", ["averaged", "local"])
def test_evaluation_reports_finite_numbers_and_changes_nothing(buffers: str) -> None:
    method = ssd.create({**SMALL, "buffers": buffers})
    vector = method.initial(0, None)
    probe = ProbeData(train=digits(0, 100), test=digits(100, 150), name="digits")
    values = [method.evaluate(EvaluationTask(run_seed=0, version=1, vector=vector), probe) for _ in range(2)]
    assert values[0] == values[1]
    assert {"linear_probe_all", "knn_all", "alignment", "effective_rank", "uniformity_global"} <= set(
        values[0]
    )
    first = train(ssd.create({**SMALL, "buffers": buffers}))
    assert np.array_equal(train(method).delta, first.delta)
    with pytest.raises(TypeError, match="probe"):
        method.evaluate(EvaluationTask(run_seed=0, version=1, vector=vector), None)


def test_initial_vectors_follow_their_seed() -> None:
    method = ssd.create(SMALL)
    assert np.array_equal(method.initial(1, None), ssd.create(SMALL).initial(1, None))
    assert not np.array_equal(method.initial(1, None), method.initial(2, None))


@pytest.mark.parametrize(
    ("config", "mistakes"),
    [
        ({"lrr": 0.1}, ["no key 'lrr'; did you mean lr?"]),
        ({"losses": {"gama": 1}, "model": {"name": "smal"}}, ["'gama'; did you mean gamma?", "'smal'"]),
        (
            {"batch_size": 1, "lr": {"kind": "cosin"}},
            ["batch_size must be at least 2", "unknown kind 'cosin'"],
        ),
        ({"batch_size": True}, ["config.batch_size: must be a valid integer, not True"]),
        ({"views": "digit"}, ["views.preset"]),
        ({"preset": "offical"}, ["config.preset"]),
        ({"projector": {"out_dim": 8}}, ["out_dim is 8", "16"]),
        ({"projector": None}, ["losses.delta = 0"]),
        ({"alpha": 0, "block": 17}, ["alpha must be positive", "block must be 1 to 16"]),
        ({"image": {"size": 8, "channels": 2}}, ["1 or 3 channels"]),
        ({"model": {"name": "resnet18", "width": None, "feature_dim": 64}}, ["feature_dim 512"]),
    ],
)
def test_a_wrong_configuration_is_refused_with_every_mistake_named(
    config: dict[str, Any], mistakes: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        ssd.create({**SMALL, **config})
    for mistake in mistakes:
        assert mistake in str(caught.value)


def test_the_base_method_has_no_settings_of_the_other() -> None:
    with pytest.raises(SettingsError, match="alpha"):
        fed_align_uniform.create({**SMALL, "alpha": 10})
    with pytest.raises(SettingsError, match="gamma"):
        fed_align_uniform.create({**SMALL, "losses": {"gamma": 1.0}})


def test_overrides_lie_on_top_of_presets() -> None:
    config = resolve(SsdConfig, {**SMALL, "preset": "paper", "basis": "rotated", "losses": {"delta": 0.5},
                                 "views": {"preset": "digits", "flip": 0.25}})  # fmt: skip
    assert (config.basis, config.losses.delta, config.losses.dsr.reduction) == ("rotated", 0.5, "mean_square")
    assert (config.views.flip, config.views.scale) == (0.25, (0.5, 1.0))


def test_an_exported_encoder_computes_what_the_model_computed(tmp_path: Path) -> None:
    from ssd.export.encoder_file import encoder_metadata, load_encoder, write_encoder

    method = ssd.create(SMALL)
    vector = method.initial(0, None) + train(method).delta
    path = tmp_path / "encoder.safetensors"
    write_encoder(path, method.export(vector), encoder_metadata(method.declare().config))
    encoder, image = load_encoder(path)
    assert (image.size, image.channels) == (8, 1)
    pictures = digits(0, 10).batch(range(10)) / 255.0
    model = method._model(torch.device("cpu"))
    model.load(vector)
    with torch.no_grad():
        assert torch.equal(encoder(pictures), model.parts["encoder"].eval()(pictures))


def test_a_warm_start_replaces_the_encoder_and_nothing_else(tmp_path: Path) -> None:
    from ssd.export.encoder_file import write_encoder

    method = ssd.create(SMALL)
    trained = method.initial(0, None) + train(method).delta
    path = tmp_path / "encoder.safetensors"
    write_encoder(path, method.export(trained), {})
    warm, cold = method.initial(9, path), method.initial(9, None)
    for tensor in method.declare().spec.tensors:
        expected = trained if tensor.name.startswith("encoder.") else cold
        assert np.array_equal(warm[tensor.where], expected[tensor.where]), tensor.name


def test_a_warm_start_of_another_size_names_the_first_tensor_that_differs(tmp_path: Path) -> None:
    from ssd.export.encoder_file import EncoderFileError, write_encoder

    wide = ssd.create({**SMALL, "model": {"name": "small", "feature_dim": 16, "width": 8}})
    path = tmp_path / "encoder.safetensors"
    write_encoder(path, wide.export(wide.initial(0, None)), {})
    with pytest.raises(EncoderFileError, match=r"layers\.0\.weight.*\(8, 1, 3, 3\).*\(4, 1, 3, 3\)"):
        ssd.create(SMALL).initial(0, path)
