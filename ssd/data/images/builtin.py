"""The data sets a run can name: digits (ships with scikit-learn), CIFAR-10, CIFAR-100 and MNIST.

Nothing is downloaded unless the configuration says so. Images are brought to the run's `ImageFormat` once, when
the set is opened: bilinear with antialiasing where the size differs, grey repeated to three channels, RGB to grey
with the ITU-R 601 weights in integers.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from ssd.data.images.errors import DataError
from ssd.data.images.identity import DatasetIdentity
from ssd.data.images.source import ImageFormat, ProbeData, TensorImages
from ssd.data.images.stratified import stratified_split
from ssd.torch_support.torchvision_compat import torchvision

TORCHVISION_CLASSES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "mnist": "MNIST"}
KINDS = ("digits", *TORCHVISION_CLASSES)
DIGITS_TEST_SIZE = 360
_RESIZE_CHUNK = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltinSet:
    """One labelled data set with its training and test split."""

    train: TensorImages
    test: TensorImages
    class_names: tuple[str, ...]
    identity: DatasetIdentity
    """Of the training split: what a partition of it is made for."""
    test_identity: DatasetIdentity
    """Of the test split, named `<kind>-test`: what the clients' test indices of a partition refer to."""

    def probe(self) -> ProbeData:
        """The set as labelled evaluation data."""
        return ProbeData(train=self.train, test=self.test, name=self.identity.name)


@lru_cache(maxsize=2)
def load_builtin(
    kind: str, image: ImageFormat, root: Path | None = None, download: bool = False
) -> BuiltinSet:
    """A built-in data set at the run's image format, kept in memory between calls (many clients share it).

    Args:
        kind: one of `KINDS`.
        image: the shape to bring the images to.
        root: the folder torchvision keeps its data sets in; `digits` needs none.
        download: fetch the set into `root` when it is not there.

    Raises:
        DataError: an unknown kind, or the files are missing or damaged; the message says what to do.
    """
    if kind == "digits":
        (train, train_labels), (test, test_labels) = _digits()
        names = tuple(str(digit) for digit in range(10))
    elif kind in TORCHVISION_CLASSES:
        if root is None:
            raise DataError(f"the data set {kind!r} needs a root folder; set `root` to where its files are")
        opened = [_torchvision_set(kind, root, train=part, download=download) for part in (True, False)]
        (train, train_labels, names), (test, test_labels, _) = opened
    else:
        raise DataError(f"there is no data set {kind!r}; known are {', '.join(KINDS)} and folder")
    return BuiltinSet(
        train=TensorImages(fit(train, image), torch.from_numpy(train_labels)),
        test=TensorImages(fit(test, image), torch.from_numpy(test_labels)),
        class_names=names,
        identity=DatasetIdentity.of(kind, train_labels.tolist()),
        test_identity=DatasetIdentity.of(f"{kind}-test", test_labels.tolist()),
    )


def fit(images: NDArray[np.uint8], image: ImageFormat) -> Tensor:
    """uint8 [N, H, W] or [N, H, W, 3] as uint8 [N, C, S, S]: channels first, then size."""
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    if pixels.shape[1] == 3 and image.channels == 1:
        red, green, blue = (pixels[:, channel : channel + 1].to(torch.int32) for channel in range(3))
        pixels = ((299 * red + 587 * green + 114 * blue + 500) // 1000).to(torch.uint8)
    if pixels.shape[2:] != (image.size, image.size):
        starts = range(0, len(pixels), _RESIZE_CHUNK)
        pixels = torch.cat([_resize(pixels[start : start + _RESIZE_CHUNK], image.size) for start in starts])
    return pixels.expand(-1, image.channels, -1, -1).contiguous()


def _resize(images: Tensor, size: int) -> Tensor:
    resized = interpolate(
        images.to(torch.float32), size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return resized.round().clamp(0, 255).to(torch.uint8)


def _digits() -> list[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """The 8x8 digits (grey 0..16 scaled to 0..255): 1,437 training and 360 test images, split once and for all."""
    table = _digits_table()
    pixels = np.rint(table[:, :64].reshape(-1, 8, 8) * (255.0 / 16.0)).astype(np.uint8)
    labels = table[:, 64].astype(np.int64)
    parts = stratified_split(labels, DIGITS_TEST_SIZE, "digits-split")
    return [(pixels[part], labels[part]) for part in parts]


def _digits_table() -> NDArray[np.float64]:
    """float64 [1797, 65]: 64 grey values and the label of every digit, out of scikit-learn's own file.

    The file is read without importing scikit-learn, which would cost every training process a second of start-up.
    """
    package = find_spec("sklearn")
    if package is not None and package.origin is not None:
        path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            with gzip.open(path, "rt", encoding="ascii") as file:
                return np.loadtxt(file, delimiter=",")
    # Another layout of the package: its own function knows where the file went.
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return np.column_stack([bunch.data, bunch.target]).astype(np.float64)


def _torchvision_set(
    kind: str, root: Path, *, train: bool, download: bool
) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
    name = TORCHVISION_CLASSES[kind]
    try:
        dataset = getattr(torchvision("torchvision.datasets"), name)(
            str(root), train=train, download=download
        )
    except (RuntimeError, OSError) as error:
        # torchvision raises RuntimeError for files that are missing or fail their checksum.
        advice = "download failed; check the network and the free space" if download else (
            f"put the extracted {name} files there, or set `download = true` to fetch them"
        )  # fmt: skip
        raise DataError(f"no usable {name} under {root} ({error}): {advice}") from error
    pixels = np.asarray(dataset.data, dtype=np.uint8)
    return pixels, np.asarray(dataset.targets, dtype=np.int64), tuple(str(label) for label in dataset.classes)
