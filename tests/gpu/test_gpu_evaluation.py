"""Evaluation on a CUDA device: every measure runs under deterministic kernels, equal calls give equal bits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ssd.data.images.source import ImageFormat, ProbeData, TensorImages
from ssd.data.views.views import PRESETS, Views
from ssd.evaluation.evaluate import EvaluationOptions
from ssd.evaluation.fine_tuning import FineTuning
from ssd.evaluation.measures import MEASURES
from ssd.evaluation.parts import Parts, evaluate_parts
from ssd.models.projector import ProjectorConfig
from ssd.models.projector import build_initialised as build_projector
from ssd.models.registry import ModelConfig, build_initialised
from ssd.torch_support.determinism import deterministic

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def coloured(count: int, seed: int) -> TensorImages:
    """Noise in one of four brightnesses."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    noise = torch.randint(0, 64, (count, 3, 32, 32), generator=generator)
    return TensorImages((noise + 48 * labels[:, None, None, None]).to(torch.uint8), labels)


def measured() -> dict[str, float]:
    model, image = ModelConfig(name="resnet18_cifar"), ImageFormat(size=32, channels=3)
    encoder = build_initialised(model, image, seed=0).eval().to("cuda")
    projector = build_projector(512, ProjectorConfig(), seed=0).eval().to("cuda")
    head = nn.Linear(512, 4, device="cuda").requires_grad_(requires_grad=False)
    head.weight.zero_()
    head.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0]))
    options = EvaluationOptions(
        device="cuda",
        measures=tuple(MEASURES),
        splits=("train", "test"),
        views=Views(PRESETS["official"]).pair,
    )
    probe = ProbeData(train=coloured(400, 0), test=coloured(120, 1), name="coloured")
    parts = Parts(encoder=encoder, feature_dim=512, projector=projector, head=head)
    with deterministic(torch.device("cuda"), 1):
        return evaluate_parts(parts, probe, ("h", "z"), options, FineTuning(epochs=3, looks=True), threads=1)


def test_every_measure_runs_and_equal_calls_give_equal_bits() -> None:
    first = measured()
    assert first["head_accuracy"] == 0.25
    assert first["linear_probe_paper"] > 0.5
    assert first["z_test_uniformity_global"] > 0
    assert measured() == first
