"""What bfloat16 forward passes do to one gradient: the table's last row in docs/methods.md.

    python tests/benchmarks/mixed_precision.py

The base objective (alignment and uniformity) on batches of 128 of scikit-learn's digits, at fresh weights and after 100
steps in float32, on the CPU: the same casts as `mixed_precision` does on CUDA. Seconds on one core. (PyTorch's bfloat16
convolutions on the CPU gave gradients that are not finite for `resnet8`, so only `small` is measured.)
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ssd.data.images.builtin import load_builtin
from ssd.data.images.source import ImageFormat
from ssd.data.views.views import PRESETS, Views
from ssd.losses.objective import objective
from ssd.losses.presets import SsdLosses
from ssd.methods.self_supervised.training import MomentumSgd
from ssd.models import projector
from ssd.models.flat import FlatModel
from ssd.models.projector import ProjectorConfig
from ssd.models.registry import ModelConfig, build_initialised

IMAGE = ImageFormat(size=8, channels=1)
LOSSES = SsdLosses(gamma=0.0, delta=0.0)


def gradient(model: FlatModel, views: Tensor, *, mixed: bool) -> Tensor:
    """The gradient of one batch's loss by all parameters, [n] float32."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        h = model.parts["encoder"](views)
        z = model.parts["projector"](h)
    (h1, h2), (z1, z2) = h.float().chunk(2), z.float().chunk(2)
    model.clear_gradient()
    torch.autograd.backward(objective((h1, h2), (z1, z2), LOSSES, None).loss)
    return model.gradient().clone()


def main() -> None:
    """Print the cosine and the relative length of the difference, mean and worst over ten batches."""
    torch.set_num_threads(1)
    images = load_builtin("digits", IMAGE).train
    encoder = build_initialised(ModelConfig(name="small", width=16), IMAGE, 0)
    head = projector.build_initialised(128, ProjectorConfig(), 1)
    model = FlatModel({"encoder": encoder, "projector": head}, "weighted", "cpu")
    generator = torch.Generator().manual_seed(0)
    optimiser = MomentumSgd(0.05, 0.9, 1e-4)
    for steps in (0, 100):
        for _ in range(steps):
            rows = torch.randint(0, len(images), (128,), generator=generator).tolist()
            views = Views(PRESETS["digits"]).pair(images.batch(rows), generator)
            optimiser.step(model.trainable, gradient(model, views, mixed=False))
        cosines, lengths = [], []
        for _ in range(10):
            rows = torch.randint(0, len(images), (128,), generator=generator).tolist()
            views = Views(PRESETS["digits"]).pair(images.batch(rows), generator)
            exact, rounded = gradient(model, views, mixed=False), gradient(model, views, mixed=True)
            cosines.append(float(torch.cosine_similarity(exact, rounded, dim=0)))
            lengths.append(float((exact - rounded).norm() / exact.norm()))
        print(
            f"after {steps} steps: cosine {sum(cosines) / 10:.5f} (least {min(cosines):.5f}), "
            f"difference {100 * sum(lengths) / 10:.2f} % of the gradient (most {100 * max(lengths):.2f} %)"
        )


if __name__ == "__main__":
    main()
