"""Encoder files: what is read, what is refused, and that a reader never sees half a file."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from ssd.data.images.source import ImageFormat
from ssd.export.encoder_file import (
    EncoderFileError,
    encoder_metadata,
    feature_dim_of,
    fitting,
    load_encoder,
    load_head,
    load_projector,
    read_encoder,
    same_version,
    tensors_of_part,
    write_encoder,
)
from ssd.method.registry import load
from ssd.models.registry import ModelConfig, build_initialised
from ssd.settings import to_json

IMAGE = ImageFormat(size=8, channels=1)
MODEL = ModelConfig(name="small", feature_dim=6, width=4)
METADATA = encoder_metadata({"model": to_json(MODEL), "image": to_json(IMAGE), "lr": 0.1})


def tensors(*, statistics: bool = True) -> dict[str, np.ndarray]:
    state = build_initialised(MODEL, IMAGE, 0).state_dict()
    return {
        name: value.numpy()
        for name, value in state.items()
        if "num_batches" not in name and (statistics or "running" not in name)
    }


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    write_encoder(path, tensors(), {**METADATA, "run": "r"})
    read, metadata = read_encoder(path)
    assert all(np.array_equal(read[name], value) for name, value in tensors().items())
    assert metadata == {**METADATA, "run": "r", "format": "ssd-encoder-v1"}


def test_an_encoder_without_statistics_normalises_by_its_batch(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    write_encoder(path, tensors(statistics=False), METADATA)
    encoder, _ = load_encoder(path)
    pictures = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = build_initialised(MODEL, IMAGE, 0).train()(pictures)
        assert torch.allclose(encoder(pictures), expected, atol=1e-6)


def test_an_encoder_brings_its_normalisation_along(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    normalise = {"mean": [0.2], "std": [0.5]}
    config = {"model": to_json(MODEL), "image": to_json(IMAGE), "normalise": normalise}
    write_encoder(path, tensors(), encoder_metadata(config))
    encoder, _ = load_encoder(path)
    write_encoder(path, tensors(), METADATA)
    plain, _ = load_encoder(path)
    pictures = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(encoder(pictures), plain((pictures - 0.2) / 0.5), atol=1e-6)
        assert torch.equal(copy.deepcopy(encoder)(pictures), encoder(pictures))
    assert encoder.state_dict().keys() == plain.state_dict().keys()
    wrong = {**config, "normalise": {"mean": [0.1, 0.1, 0.1], "std": [1.0, 1.0, 1.0]}}
    write_encoder(path, tensors(), encoder_metadata(wrong))
    with pytest.raises(EncoderFileError, match="3 values, the images 1 channels"):
        load_encoder(path)


def test_half_precision_files_are_read_as_float32_and_counters_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_file({"a": np.ones(2, np.float16), "b.num_batches_tracked": np.array(3)}, path)
    read, metadata = read_encoder(path)
    assert read["a"].dtype == np.float32
    assert list(read) == ["a"]
    assert metadata == {}


@pytest.mark.parametrize("value", [np.array([1.0, np.nan], np.float32), np.array([1, 2])])
def test_tensors_that_are_not_finite_numbers_are_refused(tmp_path: Path, value: np.ndarray) -> None:
    path = tmp_path / "bad.safetensors"
    save_file({"fine": np.ones(1, np.float32), "wrong": value}, path)
    with pytest.raises(EncoderFileError, match="'wrong'"):
        read_encoder(path)


@pytest.mark.parametrize("content", [b"", b"not a tensor file", b"\xff" * 64])
def test_files_of_another_kind_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(EncoderFileError, match="safetensors"):
        read_encoder(path)
    with pytest.raises(EncoderFileError, match="cannot be read"):
        read_encoder(tmp_path / "absent")


def test_an_encoder_of_somebody_else_is_not_loaded_as_ours(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(tensors(), path)
    with pytest.raises(EncoderFileError, match="not an encoder exported"):
        load_encoder(path)
    write_encoder(path, tensors(), {})
    with pytest.raises(EncoderFileError, match="which encoder"):
        load_encoder(path)


def test_the_first_tensor_that_does_not_fit_is_named() -> None:
    shapes = {"a": (2,), "b": (3,)}
    path = Path("file")
    fine = {"a": np.ones(2, np.float32), "b": np.ones(3, np.float32), "fc.weight": np.ones(1, np.float32)}
    fitting(fine, shapes, path)
    with pytest.raises(EncoderFileError, match="no tensor 'b'"):
        fitting({"a": fine["a"]}, shapes, path)
    with pytest.raises(EncoderFileError, match=r"'b' has shape \(2,\), the model \(3,\)"):
        fitting({"a": fine["a"], "b": fine["a"]}, shapes, path)
    with pytest.raises(EncoderFileError, match="the model has no tensor 'c'"):
        fitting({**fine, "c": fine["a"]}, shapes, path)


class TestParts:
    METHOD = load("ssd", {"image": to_json(IMAGE), "model": to_json(MODEL), "projector": {"hidden_dim": 5}})

    def write(self, path: Path, part: str | None, **metadata: str) -> np.ndarray:
        declaration, vector = self.METHOD.declare(), self.METHOD.initial(3, None)
        tensors = (
            self.METHOD.export(vector) if part is None else tensors_of_part(declaration.spec, vector, part)
        )
        write_encoder(path, tensors, {**encoder_metadata(declaration.config), **metadata}, part=part)
        return vector

    def test_a_projector_gives_what_it_gave_in_training(self, tmp_path: Path) -> None:
        path = tmp_path / "projector.safetensors"
        vector = self.write(path, "projector")
        projector = load_projector(path)
        assert not projector.training
        assert feature_dim_of(path) == 6
        points = torch.rand(7, 6, generator=torch.Generator().manual_seed(0))
        spec = self.METHOD.declare().spec
        w = {t.name: torch.from_numpy(vector[t.where].reshape(t.shape)) for t in spec.tensors}
        hidden = points @ w["projector.0.weight"].T + w["projector.0.bias"]
        hidden = (hidden - w["projector.1.running_mean"]) / (w["projector.1.running_var"] + 1e-5).sqrt()
        hidden = (hidden * w["projector.1.weight"] + w["projector.1.bias"]).relu()
        expected = hidden @ w["projector.3.weight"].T + w["projector.3.bias"]
        with torch.no_grad():
            assert torch.allclose(projector(points), expected, atol=1e-6)

    def test_the_encoder_part_is_what_the_method_exports(self) -> None:
        vector = self.METHOD.initial(3, None)
        part = tensors_of_part(self.METHOD.declare().spec, vector, "encoder")
        exported = self.METHOD.export(vector)
        assert part.keys() == exported.keys()
        assert all(np.array_equal(part[name], exported[name]) for name in part)

    @pytest.mark.parametrize("part", ["buffers", "head", "encod", ""])
    def test_a_part_that_is_not_there_is_answered_with_those_that_are(self, part: str) -> None:
        with pytest.raises(ValueError, match="its parts are encoder, projector"):
            tensors_of_part(self.METHOD.declare().spec, self.METHOD.initial(3, None), part)

    def test_one_part_is_not_taken_for_another(self, tmp_path: Path) -> None:
        encoder, projector = tmp_path / "e.safetensors", tmp_path / "p.safetensors"
        self.write(encoder, None)
        self.write(projector, "projector")
        with pytest.raises(EncoderFileError, match="not an encoder"):
            load_encoder(projector)
        with pytest.raises(EncoderFileError, match="holds an encoder, not a projector: .*--part projector"):
            load_projector(encoder)
        with pytest.raises(EncoderFileError, match="holds projector, not a head"):
            load_head(projector, 6)

    def test_a_head_must_fit_the_features(self, tmp_path: Path) -> None:
        path = tmp_path / "head.safetensors"
        weight, bias = np.arange(12, dtype=np.float32).reshape(2, 6), np.array([1, 2], np.float32)
        write_encoder(path, {"weight": weight, "bias": bias}, METADATA, part="head")
        head = load_head(path, 6)
        with torch.no_grad():
            assert head(torch.ones(1, 6)).tolist() == [[16.0, 53.0]]
        with pytest.raises(EncoderFileError, match=r"'weight' has shape \(2, 6\), the model \(2, 9\)"):
            load_head(path, 9)
        write_encoder(path, {"bias": bias}, METADATA, part="head")
        with pytest.raises(EncoderFileError, match="no tensor 'weight'"):
            load_head(path, 6)

    def test_parts_of_different_versions_are_not_put_together(self, tmp_path: Path) -> None:
        encoder, projector = tmp_path / "e.safetensors", tmp_path / "p.safetensors"
        self.write(encoder, None, run="r", version="3", model_digest="aa")
        self.write(projector, "projector", run="r", version="4", model_digest="bb")
        with pytest.raises(EncoderFileError, match="export both from the same one"):
            same_version(encoder, projector)
        self.write(projector, "projector", run="r", version="3", model_digest="aa")
        same_version(encoder, projector)
