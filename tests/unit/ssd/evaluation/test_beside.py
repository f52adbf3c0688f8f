"""What stands beside an encoder's figures: chance, raw pixels, fresh weights, and the words about a small probe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from ssd.data.images.source import ImageFormat, ProbeData, TensorImages
from ssd.evaluation.beside import beside, chance, raw_pixels, small_probe, untrained, worse_than
from ssd.evaluation.command import evaluate
from ssd.evaluation.evaluate import EvaluationOptions
from ssd.evaluation.parts import Parts
from ssd.export.encoder_file import encoder_metadata, load_encoder, write_encoder
from ssd.method.registry import load
from ssd.models.allocate import allocated
from ssd.models.initialise import initialise
from ssd.models.projector import ProjectorConfig
from ssd.models.projector import skeleton as projector
from ssd.models.registry import ModelConfig, build_initialised

SMALL = {"image": {"size": 8, "channels": 1}, "model": {"name": "small", "feature_dim": 8, "width": 4}}
SIZES = ModelConfig(name="small", feature_dim=8, width=4)
IMAGE = ImageFormat(size=8, channels=1)


def bars(count: int, per_class: tuple[int, int], seed: int) -> TensorImages:
    """Noise with a bright upper half (class 0) or lower half (class 1)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0] * per_class[0] + [1] * per_class[1])
    images = torch.randint(0, 60, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    for index, label in enumerate(labels.tolist()):
        half = slice(0, 4) if label == 0 else slice(4, 8)
        images[index, :, half] += 40
    return TensorImages(images, labels)


def probe(train: tuple[int, int] = (30, 10), test: tuple[int, int] = (9, 3)) -> ProbeData:
    return ProbeData(train=bars(sum(train), train, 1), test=bars(sum(test), test, 2), name="bars")


def parts() -> Parts:
    head = allocated(projector(8, ProjectorConfig(hidden_dim=8, out_dim=4)))
    initialise(head, torch.Generator().manual_seed(3))
    return Parts(encoder=build_initialised(SIZES, IMAGE, 5).eval(), feature_dim=8, projector=head.eval())


def exported(path: Path, config: dict[str, object]) -> Path:
    method = load("fed_align_uniform", config)
    write_encoder(path, method.export(method.initial(1, None)), encoder_metadata(method.declare().config))
    return path


def test_chance_names_the_commonest_class_and_draws_lots_where_classes_are_equal() -> None:
    options = EvaluationOptions(measures=("linear_probe", "knn", "few_labels", "quality", "fine_tune_1"))
    assert chance(probe(), options, head=True) == {
        "train_samples": 40.0, "test_samples": 12.0, "linear_probe_all": 0.75, "knn_all": 0.75, "fine_tune_1": 0.75,
        "linear_probe_2_per_class": 0.5, "knn_2_per_class": 0.5, "head_accuracy": 0.75,
    }  # fmt: skip


def test_raw_pixels_are_the_image_in_units_of_one() -> None:
    image = torch.tensor([[[[0, 255], [51, 102]]]], dtype=torch.uint8)
    assert torch.equal(raw_pixels(image), torch.tensor([[0.0, 1.0, 0.2, 0.4]]))


def test_raw_pixels_have_accuracies_and_no_geometry() -> None:
    options = EvaluationOptions(measures=("linear_probe", "quality", "fine_tune_1"))
    found = beside("raw-pixels", parts(), probe(), ("h", "z"), options, 1)
    assert set(found) == {"train_samples", "test_samples", "linear_probe_all"}
    assert found["linear_probe_all"] == 1.0
    assert beside("raw-pixels", parts(), probe(), ("z",), options, 1) == {}


def test_an_untrained_encoder_has_the_weights_that_its_seed_draws_and_leaves_the_trained_one_alone() -> None:
    given = parts()
    before = {name: value.clone() for name, value in given.encoder.state_dict().items()}
    fresh = untrained(given, 7)
    expected = build_initialised(SIZES, IMAGE, 7).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in fresh.encoder.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in given.encoder.state_dict().items())
    assert not fresh.encoder.training
    found = beside("untrained", given, probe(), ("h", "z"), EvaluationOptions(seed=7), 1)
    assert {"linear_probe_all", "z_linear_probe_all", "effective_rank", "z_effective_rank"} <= set(found)


def test_an_encoder_whose_statistics_stayed_with_the_clients_can_be_drawn_again() -> None:
    encoder = build_initialised(SIZES, IMAGE, 5)
    for layer in encoder.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    fresh = untrained(Parts(encoder=encoder.eval(), feature_dim=8), 7).encoder
    assert torch.isfinite(fresh(torch.rand(3, 1, 8, 8))).all()


@pytest.mark.parametrize(
    ("accuracy", "count", "said"),
    [
        (0.5, 40, "± 15 points"),
        (0.5, 400, None),
        (1.0, 4, "± 30 points"),
        (0.98, 100, None),
        (0.8, 100, "± 8 points"),
    ],
)
def test_a_probe_too_small_to_mean_anything_is_said_to_be(
    accuracy: float, count: int, said: str | None
) -> None:
    found = small_probe(
        {"test_samples": float(count), "knn_all": accuracy, "knn_k": 20.0, "effective_rank": 3.0}
    )
    assert (said in found) if said is not None and found is not None else found is said


def test_what_an_encoder_does_not_beat_is_named_with_the_measures() -> None:
    values = {"knn_all": 0.5, "linear_probe_all": 0.6, "knn_k": 20.0}
    others = {
        "raw-pixels": {"knn_all": 0.5, "linear_probe_all": 0.4, "knn_k": 20.0},
        "chance": {"knn_all": 0.1},
    }
    assert worse_than(values, others) == ["Not better than raw pixels: knn_all."]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(evaluate, [*arguments, "--data", "digits", "--device", "cpu", "--threads", "1"])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_prints_what_needs_no_training_beside_the_figure(tmp_path: Path) -> None:
    file = str(exported(tmp_path / "encoder.safetensors", SMALL))
    other = str(
        exported(tmp_path / "other.safetensors", {**SMALL, "model": {"name": "small", "feature_dim": 6}})
    )
    text = run(file, "--measures", "knn", "--pretrained", other)
    for words in (
        "chance",
        "raw pixels",
        "untrained",
        "pretrained",
        "Warning: Not better than raw pixels: knn_all.",
    ):
        assert words in text
    value = json.loads(run(file, "--measures", "knn", "--pretrained", other, "--format", "json"))
    assert set(value["beside"]) == {"chance", "raw-pixels", "untrained", "pretrained"}
    assert value["beside"]["chance"]["knn_all"] == pytest.approx(0.1, abs=0.01)
    assert value["beside"]["raw-pixels"]["knn_all"] > 0.95
    alone = json.loads(run(file, "--measures", "knn", "--no-beside", "--format", "json"))
    assert (alone["beside"], alone["measures"]) == ({}, value["measures"])
    pixels = json.loads(run(file, "--measures", "knn", "--as", "raw-pixels", "--format", "json"))
    assert pixels["measures"] == value["beside"]["raw-pixels"]


def test_a_pretrained_encoder_for_other_images_is_refused(tmp_path: Path) -> None:
    file = exported(tmp_path / "encoder.safetensors", SMALL)
    other = exported(tmp_path / "other.safetensors", {**SMALL, "image": {"size": 16, "channels": 1}})
    done = CliRunner().invoke(evaluate, [str(file), "--data", "digits", "--pretrained", str(other)])
    assert done.exit_code == 2
    assert "takes images of 16 pixels and 1 channels, the encoder 8 and 1" in done.stderr


def test_the_trained_encoder_and_the_fresh_one_normalise_alike(tmp_path: Path) -> None:
    file = exported(tmp_path / "encoder.safetensors", SMALL)
    encoder, _ = load_encoder(file)
    fresh = untrained(Parts(encoder=encoder, feature_dim=8), 1).encoder
    assert len(fresh._forward_pre_hooks) == len(encoder._forward_pre_hooks) == 1
