"""Opens the images of one client, or labelled probe data, from a worker's configuration."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from ssd.data.images.builtin import KINDS, BuiltinSet, load_builtin
from ssd.data.images.decode import MAX_PIXELS
from ssd.data.images.deep import Window
from ssd.data.images.errors import DataError, unknown_client
from ssd.data.images.folder import FolderImages, FolderOptions, folder_probe
from ssd.data.images.identity import DatasetIdentity
from ssd.data.images.source import ImageFormat, ImageSource, ProbeData
from ssd.data.images.subset import SubsetImages
from ssd.data.images.walk import worth_a_warning
from ssd.data.partition.partition import Partition, load

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Where the images of a worker's clients are."""

    kind: str
    """`digits`, `cifar10`, `cifar100`, `mnist`, or `folder`."""
    root: Path | None = None
    """Where torchvision's data sets are; not needed for `digits` and `folder`."""
    partition: Path | None = None
    """Which images of a built-in set belong to which client (see `ssd.data.partition.partition`)."""
    folders: Mapping[str, Path] = field(default_factory=dict)
    """For `folder`: the folder of each client."""
    test_folders: Mapping[str, Path] = field(default_factory=dict)
    """For `folder` with `labels = "folders"` and `classes`: a folder of test images per client."""
    probe: Path | None = None
    """For `folder`: labelled images to evaluate on; a built-in set is its own probe."""
    download: bool = False
    """Let torchvision fetch what is missing."""
    index_dir: Path | None = None
    """Where the outcome of checking a folder's images is kept; None checks them at every opening."""
    labels: str = "none"
    """For `folder`: `none`, or `folders` (the sub-folder of an image is its class)."""
    classes: tuple[str, ...] = ()
    """For `labels = "folders"`: the classes of the whole federation in order; empty: this client's own."""
    margin: float = 1.15
    """For `folder`: see `FolderOptions.margin`."""
    min_side: int | None = None
    max_pixels: int = MAX_PIXELS
    window: Window | None = None
    """For `folder`: the values of more than 8 bits that become black and white."""

    def __post_init__(self) -> None:
        if self.kind not in (*KINDS, "folder"):
            raise DataError(f"there is no data set {self.kind!r}; known are {', '.join(KINDS)} and folder")
        if self.labels not in ("none", "folders"):
            raise DataError(f"labels are `none` or `folders`, not {self.labels!r}")
        if self.test_folders and (self.labels != "folders" or not self.classes):
            raise DataError(
                '`test_folders` need `labels = "folders"` and the federation\'s `classes` in order'
            )


def open_client(config: DataConfig, client_id: str, image: ImageFormat) -> ImageSource:
    """The images of one client.

    Raises:
        DataError: the client is unknown (the nearest name is given), or its images cannot be used.
    """
    if config.kind == "folder":
        if client_id not in config.folders:
            raise unknown_client(client_id, config.folders, "the table of client folders")
        source = FolderImages(
            config.folders[client_id],
            image,
            _folder_options(config),
            index_dir=config.index_dir,
            class_names=config.classes or None,
        )
        report = source.report
        if report.refused or report.unreadable_folders or report.narrow or worth_a_warning(report.others):
            _log.warning("client %s: %s", client_id, report)
        return source
    if config.partition is None:
        raise DataError(
            f"the data set {config.kind!r} needs a partition file that says which images are {client_id!r}'s; "
            "set `partition`"
        )
    images = open_builtin(config, image)
    return SubsetImages(images.train, _partition(config.partition, images.identity).indices(client_id))


def open_client_test(config: DataConfig, client_id: str, image: ImageFormat) -> ImageSource | None:
    """The labelled images one client is measured on, at exactly the run's size; None if it has none.

    Of a built-in set those are the partition's test images, of folders the client's entry of `test_folders`.

    Raises:
        DataError: the client is unknown, or its test images cannot be used.
    """
    if config.kind == "folder":
        if client_id not in config.folders:
            raise unknown_client(client_id, config.folders, "the table of client folders")
        if client_id not in config.test_folders:
            return None
        exact = replace(_folder_options(config), margin=1.0)
        return FolderImages(
            config.test_folders[client_id],
            image,
            exact,
            index_dir=config.index_dir,
            class_names=config.classes,
        )
    if config.partition is None:
        return None
    images = open_builtin(config, image)
    split = _partition(config.partition, images.identity, images.test_identity)
    split.indices(client_id)  # an unknown client is an error, not one without test images
    owned = () if split.test is None else split.test.clients[client_id]
    return SubsetImages(images.test, owned) if owned else None


def open_probe(config: DataConfig, image: ImageFormat) -> ProbeData:
    """Labelled images to evaluate on: the built-in set's own split, or the probe folder.

    With a partition file the probe of a built-in set also says which of its training images are whose.

    Raises:
        DataError: the configuration names no probe folder, or it cannot be used.
    """
    if config.kind != "folder":
        images = open_builtin(config, image)
        if config.partition is None:
            return images.probe()
        clients = _partition(config.partition, images.identity).clients
        return replace(images.probe(), clients=clients)
    if config.probe is None:
        raise DataError(
            "no labelled images to evaluate on; set `probe` to a folder with one sub-folder per class"
        )
    return folder_probe(config.probe, image, _folder_options(config), index_dir=config.index_dir)


def open_builtin(config: DataConfig, image: ImageFormat) -> BuiltinSet:
    """The whole built-in set; its `identity` and training labels are what a partition is made from."""
    return load_builtin(config.kind, image, config.root, config.download)


def _partition(path: Path, train: DatasetIdentity, test: DatasetIdentity | None = None) -> Partition:
    """The checked partition file, read again only when it changes: many clients ask for it."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        changed = 0  # reading it says what is wrong
    return _read_partition(path, changed, train, test)


@lru_cache(maxsize=4)
def _read_partition(
    path: Path, changed: int, train: DatasetIdentity, test: DatasetIdentity | None
) -> Partition:
    del changed
    return load(path, train, test)


def _folder_options(config: DataConfig) -> FolderOptions:
    return FolderOptions(
        margin=config.margin,
        labels=config.labels == "folders",
        min_side=config.min_side,
        max_pixels=config.max_pixels,
        window=config.window,
    )
