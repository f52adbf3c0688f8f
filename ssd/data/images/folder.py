"""A folder or archive of photographs as an image source: streamed from disk, never held in memory.

Every image becomes one square: its short side is scaled to S' = round(size x margin) and the centre is cropped to
S' x S'. The margin (15 % unless configured) leaves training's random crops something to choose from; a probe uses
none, so that an encoder is measured on the whole centre at exactly the run's size.

Memory is one batch plus two images in the making, whatever the number and size of the photographs.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssd.data.containers.open import container, part
from ssd.data.containers.protocol import Container
from ssd.data.images.decode import MAX_PIXELS, Decoding, RefusedImageError, decode
from ssd.data.images.deep import Window
from ssd.data.images.errors import DataError, FolderChanged
from ssd.data.images.scan import ImageFile, scan
from ssd.data.images.source import ImageFormat, ProbeData
from ssd.data.images.subset import SubsetImages
from ssd.data.images.walk import printable
from ssd.data.medical.plane import ALL_PLANES, Planes
from ssd.random_stream import RandomStream


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderOptions:
    """The options of reading a folder of images."""

    margin: float = 1.15
    """The stored square is this much larger than the run's image size."""
    labels: bool = False
    """The names of the top-level sub-folders are the classes; images outside of one are left out."""
    min_side: int | None = None
    """Shorter images are left out; None: the run's image size."""
    max_pixels: int = MAX_PIXELS
    window: Window | None = None
    """For pixels of more than 8 bits: the values that become black and white; None: see `ssd.data.images.deep`."""
    planes: Planes = ALL_PLANES
    """Which planes of volumes and frames of DICOM files are images."""
    threads: int = 2
    """Files decoded at the same time; the result does not depend on it."""


class FileImages:
    """The usable images of a container of files, in the order of their relative paths; without labels.

    Attributes:
        report: what was found and what was left out, and why.
        class_names: the classes by label, empty without labels.
        requested: the run's image format; `format` is larger by the margin.
    """

    def __init__(
        self,
        files: Container,
        image: ImageFormat,
        options: FolderOptions,
        *,
        index_dir: Path | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        """Find and check the images (see `ssd.data.images.scan`).

        Args:
            files: where they are.
            image: what the run's method asks for.
            options: how they are read.
            index_dir: where the outcome of the check is kept; None checks every file each time.
            classes: if given, only images below a top-level folder of one of these names are used.

        Raises:
            DataError: the container cannot be read, or has no usable image in it.
        """
        if options.margin < 1.0:
            raise DataError(f"the margin around an image must be at least 1, not {options.margin}")
        self.requested = image
        self._container = files
        self._options = options
        side = round(image.size * options.margin)
        self._format = ImageFormat(size=side, channels=image.channels)
        self._how = Decoding(
            side=side,
            channels=image.channels,
            max_pixels=options.max_pixels,
            window=options.window,
            axis=options.planes.axis,
        )
        min_side = image.size if options.min_side is None else options.min_side
        self._files, self.report = scan(
            files,
            index_dir=index_dir,
            min_side=min_side,
            max_pixels=options.max_pixels,
            window=options.window,
            classes=classes,
            planes=options.planes,
            threads=options.threads,
        )
        if not self._files:
            raise DataError(_nothing_usable(str(self.report), min_side, classes is not None))
        self.class_names: tuple[str, ...] = ()
        self._labels: Tensor | None = None

    @property
    def root(self) -> Path:
        """Where the files are."""
        return self._container.path

    @property
    def format(self) -> ImageFormat:
        """The shape of every image: the requested size times the margin."""
        return self._format

    @property
    def labels(self) -> Tensor | None:
        """[len] int64 class labels, or None."""
        return self._labels

    @property
    def files(self) -> tuple[ImageFile, ...]:
        """The image files by index."""
        return self._files

    def __len__(self) -> int:
        """The number of images."""
        return len(self._files)

    def changed(self) -> bool:
        """Whether files appeared or went since they were looked through. Costs a look at each sub-folder.

        A file that is written anew in its place is noticed when it is read.
        """
        return self._container.changed(self.report.folders)

    def batch(self, indices: Sequence[int]) -> Tensor:
        """[B, C, S', S'] uint8 on the CPU, in the order of `indices`, decoded now.

        Raises:
            FolderChanged: a file was changed, removed or damaged after it was checked.
        """
        shape = (len(indices), self._how.channels, self._how.side, self._how.side)
        pixels = np.empty(shape, dtype=np.uint8)

        def fill(row: int) -> None:
            pixels[row] = self._read(self._files[indices[row]])

        threads = self._options.threads
        if len(indices) <= 1 or threads <= 1:
            for row in range(len(indices)):
                fill(row)
        else:
            # A pool per batch: starting two threads costs far less than one decode, and nothing is left running.
            with ThreadPoolExecutor(threads) as pool:
                for _ in pool.map(fill, range(len(indices))):
                    pass
        return torch.from_numpy(pixels)

    def _read(self, file: ImageFile) -> NDArray[np.uint8]:
        path = self.root / file.relative
        try:
            if self._container.stamp(file.relative) != (file.size, file.mtime_ns):
                raise FolderChanged(_changed(path, "its size or modification time is another"))
            return decode(partial(self._container.open, file.relative), self._how, file.frame)
        except (OSError, RefusedImageError) as error:
            raise FolderChanged(_changed(path, str(error))) from error


class FolderImages(FileImages):
    """The usable images under a folder or in a zip or tar file, in the order of their relative paths."""

    def __init__(
        self,
        root: Path | Container,
        image: ImageFormat,
        options: FolderOptions | None = None,
        *,
        index_dir: Path | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Find and check the images.

        Args:
            root: the folder or archive.
            image: what the run's method asks for.
            options: None: the defaults.
            index_dir: where the outcome of the check is kept; None checks every file each time.
            class_names: with `options.labels`, the classes and their numbers; None: the sub-folders, sorted.

        Raises:
            DataError: not a readable folder or archive, or no usable image in it.
        """
        options = options or FolderOptions()
        files = container(root) if isinstance(root, Path) else root
        wanted = files.folders() if class_names is None else tuple(class_names)
        super().__init__(
            files, image, options, index_dir=index_dir, classes=wanted if options.labels else None
        )
        if options.labels:
            folders = [file.relative.split("/")[0] for file in self._files]
            # A class nobody named exists only if it has an image.
            self.class_names = tuple(sorted(set(folders))) if class_names is None else wanted
            number = {name: label for label, name in enumerate(self.class_names)}
            self._labels = torch.tensor([number[folder] for folder in folders])


def folder_probe(
    root: Path,
    image: ImageFormat,
    options: FolderOptions | None = None,
    *,
    index_dir: Path | None = None,
    seed: int = 0,
    test_share: float = 0.2,
) -> ProbeData:
    """Labelled evaluation data from a folder of class folders.

    With sub-folders `train` and `test`, each holding class folders, that is the split. Otherwise the sub-folders
    are the classes and each gives `test_share` of its images (at least one, and never its last) to the test
    split: which ones depends on `seed`, the class name and the sorted file names only.

    Raises:
        DataError: fewer than two classes, no usable images, or a test class that has no training images.
    """
    given = options or FolderOptions()
    exact = replace(given, margin=1.0, labels=True)
    whole = container(root)
    if {"train", "test"} <= set(whole.folders()):
        train_files, test_files = part(whole, "train"), part(whole, "test")
        train = FolderImages(train_files, image, exact, index_dir=index_dir)
        _check_classes(train.class_names, train_files.path)
        strange = sorted(set(test_files.folders()) - set(train.class_names))
        if strange:
            raise DataError(
                f"the class {printable(strange[0])!r} of {test_files.path} has no images in {train_files.path}; "
                "the sub-folders of both must have the same names"
            )
        test = FolderImages(test_files, image, exact, index_dir=index_dir, class_names=train.class_names)
        return ProbeData(train=train, test=test, name=printable(root.name))
    every = FolderImages(whole, image, exact, index_dir=index_dir)
    _check_classes(every.class_names, root)
    train_rows: list[int] = []
    test_rows: list[int] = []
    assert every.labels is not None
    labels = every.labels.numpy()
    for label, name in enumerate(every.class_names):
        members = np.flatnonzero(labels == label).tolist()
        held_out = min(len(members) - 1, max(1, round(len(members) * test_share)))
        # printable: a folder's name need not be text, a stream's label must be.
        chosen = set(RandomStream("probe-split", seed, printable(name)).sample(members, held_out))
        test_rows += [row for row in members if row in chosen]
        train_rows += [row for row in members if row not in chosen]
    if not test_rows:
        raise DataError(f"every class under {root} has one image; a probe needs at least two of some class")
    return ProbeData(
        train=SubsetImages(every, train_rows), test=SubsetImages(every, test_rows), name=printable(root.name)
    )


def _check_classes(names: Sequence[str], root: Path) -> None:
    if len(names) < 2:
        raise DataError(
            f"{root} has {len(names)} class folder(s) with usable images; a probe needs at least two: one "
            "sub-folder per class, or `train` and `test` folders that hold them"
        )


def _nothing_usable(report: str, min_side: int, labels: bool) -> str:
    wanted = "one sub-folder of images per class" if labels else "images (sub-folders are searched too)"
    return (
        f"there is no usable image: {report}. Put {wanted} there, JPEG, PNG, WebP, BMP, GIF, TIFF or PPM files "
        f"with a short side of at least {min_side} pixels, or ask for a smaller image size"
    )


def _changed(path: Path, detail: str) -> str:
    return (
        f"{printable(str(path))} was changed after it was checked ({detail}); the folder is looked through again when it "
        "is next opened"
    )
