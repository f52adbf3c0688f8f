"""Images that a manifest names, as a source and as a probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ssd.daemon.printable import printable
from ssd.daemon.suggest import nearest
from ssd.data.containers.listed import Listed
from ssd.data.containers.open import container
from ssd.data.images.errors import DataError
from ssd.data.images.folder import FileImages, FolderOptions
from ssd.data.images.source import ImageFormat, ProbeData
from ssd.data.manifest.table import TEST, TRAIN, Manifest, Row


class ManifestImages(FileImages):
    """The usable images of some rows, in the order of their paths."""

    def __init__(
        self,
        manifest: Manifest,
        rows: Sequence[Row],
        root: Path,
        image: ImageFormat,
        options: FolderOptions,
        *,
        index_dir: Path | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        """Find and check them (see `ssd.data.images.scan`).

        Args:
            manifest: the table.
            rows: which of its rows.
            root: the folder or archive that the paths begin at.
            image: what the run's method asks for.
            options: how files are read; with `labels` the images have those of the table.
            index_dir: where the outcome of the check is kept.
            classes: the classes and their numbers; empty: those of the table.

        Raises:
            DataError: no usable image, or with `labels` a row without a known label.
        """
        if options.labels and "label" not in manifest.has:
            raise DataError(
                f"the manifest {manifest.file} has no label column; [data.columns] label names it"
            )
        names = tuple(classes) or manifest.classes()
        number = {name: label for label, name in enumerate(names)}
        if options.labels:
            strange = next((row for row in rows if row.label not in number), None)
            if strange is not None:
                raise DataError(
                    f"the manifest {manifest.file}: the label {printable(strange.label)[:40]!r} of "
                    f"{printable(strange.path)[:80]} is none of [data] classes{nearest(strange.label, names)}"
                )
        listed = Listed(container(root), [row.path for row in rows], manifest.file)
        super().__init__(listed, image, options, index_dir=index_dir)
        if options.labels:
            by_path = {row.path: number[row.label] for row in rows}
            self.class_names = names
            self._labels = torch.tensor([by_path[file.relative] for file in self.files])


def manifest_probe(
    manifest: Manifest,
    root: Path,
    image: ImageFormat,
    options: FolderOptions,
    *,
    index_dir: Path | None = None,
    classes: Sequence[str] = (),
) -> ProbeData:
    """The labelled rows of all clients: those for training to fit a probe, those for testing to measure it.

    Raises:
        DataError: no label column, no rows for testing, or fewer than two classes.
    """
    exact = replace(options, margin=1.0, labels=True)
    train, test = manifest.of(None, TRAIN), manifest.of(None, TEST)
    if not test:
        raise DataError(
            f"the manifest {manifest.file} has no rows to measure on: give some the split {TEST!r}, or set `probe` to a "
            "folder with one sub-folder per class"
        )
    if len({row.label for row in train}) < 2:
        raise DataError(
            f"the manifest {manifest.file}: a probe needs training images of two classes at least"
        )
    fit, measure = (
        ManifestImages(manifest, rows, root, image, exact, index_dir=index_dir, classes=classes)
        for rows in (train, test)
    )
    clients = None
    if "client" in manifest.has:
        owner = {row.path: row.client for row in train}
        clients = {client: list[int]() for client in manifest.clients()}
        for index, file in enumerate(fit.files):
            if owner[file.relative]:
                clients[owner[file.relative]].append(index)
    return ProbeData(train=fit, test=measure, name=printable(manifest.file.stem), clients=clients)
