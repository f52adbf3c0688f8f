"""Opens the images of one client, or labelled probe data, from a worker's configuration."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from ssd.data.images.builtin import KINDS, BuiltinSet, load_builtin
from ssd.data.images.decode import MAX_PIXELS
from ssd.data.images.deep import Window
from ssd.data.images.errors import DataError, unknown_client
from ssd.data.images.folder import FileImages, FolderImages, FolderOptions, folder_probe
from ssd.data.images.identity import DatasetIdentity
from ssd.data.images.source import ImageFormat, ImageSource, ProbeData
from ssd.data.images.subset import SubsetImages
from ssd.data.images.walk import worth_a_warning
from ssd.data.manifest.images import ManifestImages, manifest_probe
from ssd.data.manifest.table import TEST, TRAIN, Manifest, read_manifest
from ssd.data.medical.plane import Axis, Planes
from ssd.data.partition.partition import Partition, load

FILES = ("folder", "manifest")
"""Kinds of data that are files of the operator's."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Where the images of a worker's clients are."""

    kind: str
    """`digits`, `cifar10`, `cifar100`, `mnist`, `folder`, or `manifest`."""
    root: Path | None = None
    """Where torchvision's data sets are, and where a manifest's paths begin (None: at the manifest's folder)."""
    partition: Path | None = None
    """Which images of a built-in set belong to which client (see `ssd.data.partition.partition`)."""
    folders: Mapping[str, Path] = field(default_factory=dict)
    """For `folder`: the folder of each client, or its .zip or .tar file."""
    manifest: Path | None = None
    """For `manifest`: the table (see `ssd.data.manifest.table`)."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """For `manifest`: what its columns are called."""
    test_folders: Mapping[str, Path] = field(default_factory=dict)
    """For `folder` with `labels = "folders"` and `classes`: a folder of test images per client."""
    probe: Path | None = None
    """For `folder`: labelled images to evaluate on; a built-in set is its own probe."""
    download: bool = False
    """Let torchvision fetch what is missing."""
    index_dir: Path | None = None
    """Where the outcome of checking a folder's images is kept; None checks them at every opening."""
    labels: str = "none"
    """`none`, `folders` (for `folder`: the sub-folder of an image is its class), or `column` (for `manifest`)."""
    classes: tuple[str, ...] = ()
    """With labels: the classes of the whole federation in order; empty: those there are."""
    axis: Axis = "axial"
    """Of medical volumes: across which axis planes are cut."""
    frames: Literal["all", "middle"] = "all"
    """Of medical volumes and DICOM files of several frames: which planes are images."""
    margin: float = 1.15
    """For `folder`: see `FolderOptions.margin`."""
    min_side: int | None = None
    max_pixels: int = MAX_PIXELS
    window: Window | None = None
    """For `folder`: the values of more than 8 bits that become black and white."""

    def __post_init__(self) -> None:
        if self.kind not in (*KINDS, *FILES):
            raise DataError(f"there is no data set {self.kind!r}; known are {', '.join((*KINDS, *FILES))}")
        if self.labels not in ("none", "folders", "column"):
            raise DataError(f"labels are `none`, `folders` or `column`, not {self.labels!r}")
        if self.kind == "manifest" and self.manifest is None:
            raise DataError("a manifest needs `manifest`, the file that lists the images")
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
        return _told(client_id, source)
    if config.kind == "manifest":
        return _told(client_id, _listed(config, client_id, image, TRAIN))
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
    if config.kind == "manifest":
        has = config.labels == "column" and _manifest(config).of(client_id, TEST)
        return _listed(config, client_id, image, TEST) if has else None
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
    if config.kind == "manifest" and config.probe is None:
        return manifest_probe(
            _manifest(config),
            _root(config),
            image,
            _folder_options(config),
            index_dir=config.index_dir,
            classes=config.classes,
        )
    if config.kind not in FILES:
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


def _told(client_id: str, source: FileImages) -> FileImages:
    """Warn of what an operator should look at."""
    report = source.report
    if report.refused or report.unreadable_folders or report.narrow or worth_a_warning(report.others):
        _log.warning("client %s: %s", client_id, report)
    return source


def _manifest(config: DataConfig) -> Manifest:
    assert config.manifest is not None  # checked when the configuration was made
    return read_manifest(config.manifest, config.columns)


def _root(config: DataConfig) -> Path:
    assert config.manifest is not None
    return config.manifest.parent if config.root is None else config.root


def _listed(config: DataConfig, client_id: str, image: ImageFormat, split: str) -> FileImages:
    manifest = _manifest(config)
    rows = manifest.of(client_id, split)
    if not rows:
        raise unknown_client(
            client_id, manifest.clients(), f"the {split} rows of the manifest {manifest.file}"
        )
    options = _folder_options(config)
    return ManifestImages(
        manifest,
        rows,
        _root(config),
        image,
        replace(options, margin=1.0) if split == TEST else options,
        index_dir=config.index_dir,
        classes=config.classes,
    )


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
        labels=config.labels == ("column" if config.kind == "manifest" else "folders"),
        min_side=config.min_side,
        max_pixels=config.max_pixels,
        window=config.window,
        planes=Planes(axis=config.axis, which=config.frames),
    )
