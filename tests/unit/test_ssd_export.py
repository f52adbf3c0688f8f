"""Encoder files: what is read, what is refused, and that a reader never sees half a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from ssd.data.source import ImageFormat
from ssd.export import (
    EncoderFileError,
    encoder_metadata,
    fitting,
    load_encoder,
    read_encoder,
    write_encoder,
)
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
