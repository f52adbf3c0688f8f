"""From a path to the container that it is."""

from __future__ import annotations

from pathlib import Path

from ssd.data.containers.archive import PACKED, TAR, ZIP, Archive, Part
from ssd.data.containers.protocol import Container
from ssd.data.containers.tree import FolderTree
from ssd.data.images.errors import DataError


def container(path: Path) -> Container:
    """A folder, or a zip or tar file by its ending; a folder that is called like one is a folder.

    Raises:
        DataError: an archive of a kind whose members cannot be read one by one.
    """
    name = path.name.lower()
    if name.endswith(PACKED) and not path.is_dir():
        raise DataError(
            f"{path.absolute()}: images cannot be read one by one out of a compressed archive: pack it as .zip or .tar "
            "(photographs do not become smaller), or unpack it and name the folder"
        )
    return Archive(path) if name.endswith(ZIP + TAR) and not path.is_dir() else FolderTree(path)


def part(whole: Container, folder: str) -> Container:
    """One of its top-level folders as a container."""
    return Part(whole, folder) if isinstance(whole, Archive) else FolderTree(whole.path / folder)
