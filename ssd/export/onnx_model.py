"""An encoder as an ONNX model, checked against torch before anybody gets it.

Written by `torch.onnx.export` (the exporter on `torch.export`) with a free batch size and the normalisation of the
images inside: the model takes what `ssd.export.encoder_file.load_encoder` takes. Needs the packages of the extra `onnx`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ssd.export.source import FormImpossible, Source

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUT, OUTPUT = "images", "features"
TOLERANCE = 1e-4
"""Largest |difference| between onnxruntime and torch, over the largest |feature| if that is more than 1."""
MAX_SIDE = 4096
"""Pixels; the images of the check have to fit into memory, and the size is what a file says."""
_BATCHES = (1, 3)
_TRACED = 2
"""Neither 0 nor 1, which the exporter would take for constants."""


class OnnxPackagesMissing(ImportError):
    """A package that is needed is not installed."""


class OnnxDiffers(ArithmeticError):
    """The model that was made does not compute what the encoder does."""


class _WithNormalisation(nn.Module):
    def __init__(self, source: Source) -> None:
        super().__init__()
        self.encoder = source.encoder
        self._normalises = source.normalises
        for name, values in (("mean", source.mean), ("std", source.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if self._normalises:
            images = (images - self.get_buffer("mean")) / self.get_buffer("std")
        features: Tensor = self.encoder(images)
        return features


def onnx_bytes(source: Source, facts: Mapping[str, str]) -> tuple[bytes, float]:
    """The model, and the largest absolute difference to torch that was found.

    Args:
        source: the encoder.
        facts: strings that go into the model's metadata, by name.

    Raises:
        FormImpossible: the encoder normalises by its batch, or its images are too large to check it with.
        OnnxPackagesMissing: the extra is not installed; the message says how to install it.
        OnnxDiffers: the difference is over `TOLERANCE`.

    """
    if not source.has_statistics:
        raise FormImpossible(
            "onnx is impossible for this encoder: it was exported without BatchNorm statistics (buffers = "
            '"local"), so its features depend on the batch; take --format state-dict'
        )
    if source.image.size > MAX_SIDE:
        raise FormImpossible(
            f"onnx is impossible for images of {source.image.size} pixels a side: at most {MAX_SIDE} can be checked"
        )
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise OnnxPackagesMissing(
                f"ONNX needs the package {name}: pip install '.[onnx]', or choose another --format ({error})"
            ) from error
    made = _exported(source, facts)
    return made, _largest_difference(source, made)


def _images(source: Source, count: int) -> Tensor:
    side = source.image.size
    return torch.rand(
        count, source.image.channels, side, side, generator=torch.Generator().manual_seed(count)
    )


def _exported(source: Source, facts: Mapping[str, str]) -> bytes:
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        program = torch.onnx.export(
            _WithNormalisation(source).eval(),
            (_images(source, _TRACED),),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props.update(facts)
        path = Path(folder) / "encoder.onnx"
        program.save(str(path), external_data=False)
        return path.read_bytes()


def _largest_difference(source: Source, model: bytes) -> float:
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    largest = scale = 0.0
    for count in _BATCHES:
        images = _images(source, count)
        expected = source.features(images)
        got = torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])
        if got.shape != expected.shape:
            raise OnnxDiffers(
                f"onnxruntime gives features of shape {tuple(got.shape)}, torch {tuple(expected.shape)}"
            )
        largest = max(largest, float((got - expected).abs().max()))
        scale = max(scale, float(expected.abs().max()))
    # Not `largest > …`: a difference that is not a number has to be refused too.
    if not largest <= TOLERANCE * max(1.0, scale):
        raise OnnxDiffers(
            f"onnxruntime and torch differ by up to {largest:.3g} where features reach {scale:.3g}; "
            f"{TOLERANCE:g} of that is allowed. Nothing was written; take --format state-dict, and report the encoder"
        )
    return largest


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Neither the exporter's progress nor its deprecations: they speak of its insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            open(os.devnull, "w") as nowhere,
        ):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(nowhere):
                yield
    finally:
        logging.disable(before)
