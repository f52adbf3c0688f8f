"""Image formats and images in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssd.data.images.source import ImageFormat, ImageSource, TensorImages


def test_images_in_memory_are_an_image_source() -> None:
    pictures = torch.arange(2 * 3 * 5 * 5, dtype=torch.uint8).reshape(2, 3, 5, 5)
    source = TensorImages(pictures, torch.tensor([4, 7], dtype=torch.int32))
    assert isinstance(source, ImageSource)
    assert len(source) == 2
    assert source.format == ImageFormat(size=5, channels=3)
    assert source.labels is not None
    assert source.labels.dtype == torch.int64
    assert torch.equal(source.batch([1, 0, 1]), pictures[[1, 0, 1]])
    assert source.batch([]).shape == (0, 3, 5, 5)
    assert TensorImages(pictures).labels is None


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 1, 5, 5),
        torch.zeros(2, 5, 5, dtype=torch.uint8),
        torch.zeros(2, 1, 5, 6, dtype=torch.uint8),
    ],
)
def test_images_of_another_type_or_shape_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="square uint8"):
        TensorImages(images)


def test_labels_of_another_number_are_refused() -> None:
    with pytest.raises(ValueError, match="2 images but labels"):
        TensorImages(torch.zeros(2, 1, 5, 5, dtype=torch.uint8), torch.zeros(3))


@pytest.mark.parametrize(("size", "channels"), [(3, 1), (8, 2)])
def test_impossible_formats_are_refused(size: int, channels: int) -> None:
    with pytest.raises(ValueError, match=r"size|channels"):
        ImageFormat(size=size, channels=channels)


ROOT = Path(__file__).resolve().parents[4]
_OPENMP_TEAMS = """
import os, torch
from concurrent.futures import ThreadPoolExecutor
from ssd.data.images.source import TensorImages
from ssd.data.images.subset import SubsetImages

torch.set_num_threads(2)
source = TensorImages(torch.zeros(256, 3, 64, 64, dtype=torch.uint8))
everywhere = SubsetImages(source, list(range(256)))
torch.zeros(256, 3, 64, 64).add_(1)  # the training's own team is there
with ThreadPoolExecutor(1) as reader:
    reader.submit(int).result()
    before = len(os.listdir("/proc/self/task"))
    for each in (source, everywhere):
        reader.submit(each.batch, list(range(256))).result()
    print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads where Linux lists them")
def test_reading_ahead_starts_no_second_team_of_computing_threads() -> None:
    """Such a team waits busily: with `run.threads = 2` on two cores training took twice as long."""
    done = subprocess.run(
        [sys.executable, "-c", _OPENMP_TEAMS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "0"
