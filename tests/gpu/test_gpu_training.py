"""Training on a CUDA device: deterministic, close to the CPU, and with mixed precision still learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from ssd.data.images.source import TensorImages
from ssd.data.views.views import PRESETS, Views
from ssd.method.protocol import ClientResult, ClientTask
from ssd.method.registry import load
from ssd.methods.self_supervised import ssd
from ssd.scaling import ScalingVector

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CONFIG: dict[str, Any] = {
    "image": {"size": 32, "channels": 3},
    "model": {"name": "resnet18_cifar"},
    "batch_size": 32,
    "local_epochs": 1,
}


def pictures(count: int = 96) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def silent(step: int, steps: int, losses: Mapping[str, float]) -> None:
    """Progress that nobody watches."""


def visit(device: str, **config: Any) -> ClientResult:
    method = ssd.create({**CONFIG, **config})
    task = ClientTask(
        run_seed=1,
        round=1,
        rounds=1,
        client_id="client-000",
        base=method.initial(0, None),
        values={"lr": 0.01},
        scaling=ScalingVector(512, tuple(range(51)), 10.0),
        artefacts=method.artefacts(0),
        device=device,
    )
    return method.train(task, TensorImages(pictures()), silent)


def test_equal_tasks_give_equal_bits_on_one_device() -> None:
    first, second = visit("cuda"), visit("cuda")
    assert np.array_equal(first.delta, second.delta)
    assert first.statistics == second.statistics


@pytest.mark.parametrize("mixed_precision", [False, True])
@pytest.mark.parametrize("name", ["feddecorr", "fedu2", "fedx", "local_only_ssl"])
def test_methods_that_add_to_the_objective_are_deterministic_too(name: str, mixed_precision: bool) -> None:
    method = load(name, {**CONFIG, "model": {"name": "resnet8"}, "mixed_precision": mixed_precision})
    task = ClientTask(
        run_seed=1,
        round=1,
        rounds=1,
        client_id="client-000",
        base=method.initial(0, None),
        values={"lr": 0.01},
        device="cuda",
    )
    first, second = (method.train(task, TensorImages(pictures()), silent) for _ in range(2))
    assert np.isfinite(first.delta).all()
    assert np.array_equal(first.delta, second.delta)
    assert first.statistics == second.statistics


def test_a_gpu_and_a_cpu_see_the_same_views_and_almost_the_same_losses() -> None:
    views = Views(PRESETS["official"])
    on_cpu = views.pair(pictures(), torch.Generator().manual_seed(3))
    on_gpu = views.pair(pictures().cuda(), torch.Generator().manual_seed(3)).cpu()
    assert torch.allclose(on_cpu, on_gpu, atol=1e-4)
    cpu, gpu = visit("cpu"), visit("cuda")
    assert float(gpu.statistics["loss_sum"]) == pytest.approx(float(cpu.statistics["loss_sum"]), rel=0.02)
    assert gpu.statistics["batches"] == cpu.statistics["batches"]


def test_mixed_precision_is_close_to_full_precision() -> None:
    full, mixed = visit("cuda"), visit("cuda", mixed_precision=True)
    assert np.isfinite(mixed.delta).all()
    assert float(mixed.statistics["loss_sum"]) == pytest.approx(float(full.statistics["loss_sum"]), rel=0.1)
