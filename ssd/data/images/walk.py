"""What lies in a folder, before any file is opened: images by their names, what is left alone, and what is litter.

The walk follows symbolic links but enters no folder twice (a link to a parent ends there), skips hidden names, and
sorts by relative path, code point by code point, whatever the locale.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ssd.data.images.decode import Refusal, is_image_name
from ssd.data.images.errors import DataError

LITTER = frozenset(
    {"@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "__macosx", "$recycle.bin",
     "system volume information", "lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini"}
)  # fmt: skip
"""What network drives and desktops leave behind: folders of thumbnails and deleted files, and caches. In lower case."""
IMAGE_LIKE = frozenset(
    ".heic .heif .avif .jxl .jp2 .j2k .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .raw .psd .svg .dcm .nii .gz".split()  # noqa: SIM905
)
"""Endings of pictures that are not read: worth a warning, where a text file is not."""
_KINDS = 5
_ENDING = 12
HEIC = frozenset({".heic", ".heif"})
MEDICAL = frozenset({".dcm", ".dicom", ".nii"})


@dataclass(slots=True)
class Walk:
    """What was found."""

    files: list[tuple[str, int, int]] = field(default_factory=list)
    """(relative, size, mtime_ns) of regular files named like images."""
    refused: dict[str, Refusal] = field(default_factory=dict)
    """Named like images, and no regular file."""
    unreadable: list[str] = field(default_factory=list)
    """Folders."""
    folders: dict[str, int] = field(default_factory=dict)
    """Every folder that was entered -> its modification time in ns, which changes when a name appears or goes."""
    others: Counter[str] = field(default_factory=Counter)
    """Other files by their ending in lower case, "" without one."""
    litter: Counter[str] = field(default_factory=Counter)
    """Names of `LITTER` as they were met: a folder counts once, whatever is in it."""
    complete: bool = True
    """False: it was given up."""


def is_litter(name: str) -> bool:
    """Whether a file or folder of that name is a drive's or a desktop's own."""
    return name.lower() in LITTER


def walk(root: Path, give_up: Callable[[], bool] = lambda: False) -> Walk:
    """Everything under `root`.

    Args:
        root: the folder.
        give_up: asked once a folder.

    Raises:
        DataError: `root` is not a folder that can be read.
    """
    found = Walk()
    try:
        top = os.stat(root)
        with os.scandir(root):
            pass
    except OSError as error:
        raise DataError(
            f"cannot read the image folder {root.absolute()}: {error.strerror or error}"
        ) from error
    entered = {(top.st_dev, top.st_ino)}
    folders = [""]
    while folders:
        if give_up():
            found.complete = False
            break
        folder = folders.pop()
        try:
            found.folders[folder] = os.stat(root / folder).st_mtime_ns
            with os.scandir(root / folder) as listing:
                names = sorted(entry.name for entry in listing if not entry.name.startswith("."))
        except OSError:
            found.unreadable.append(folder)
            continue
        folders += reversed(_look(found, root, folder, names, entered))
    found.files.sort()
    return found


def _look(found: Walk, root: Path, folder: str, names: list[str], entered: set[tuple[int, int]]) -> list[str]:
    """Files into `found`; the folders that are to be entered."""
    inside = []
    for name in names:
        if is_litter(name):
            found.litter[name] += 1
            continue
        relative = f"{folder}/{name}" if folder else name
        ending = os.path.splitext(name)[1].lower()
        image = is_image_name(name)
        try:
            status = os.stat(root / relative)
        except OSError:
            # A broken link, a link to itself, a name that vanished or may not be looked at.
            if image:
                found.refused[relative] = Refusal.UNREADABLE
            else:
                found.others[ending] += 1
            continue
        if stat.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) not in entered:
                entered.add((status.st_dev, status.st_ino))
                inside.append(relative)
        elif not image:
            found.others[ending] += 1
        elif not stat.S_ISREG(status.st_mode):
            found.refused[relative] = Refusal.NOT_A_FILE
        else:
            found.files.append((relative, status.st_size, status.st_mtime_ns))
    return inside


def printable(name: str) -> str:
    """A file name that any terminal or log can take: bytes that are no text become escapes."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def left_alone(others: Mapping[str, int], litter: Mapping[str, int]) -> str:
    """What was not looked at, by kind and number; empty if there was nothing."""
    kinds = sorted(others, key=lambda ending: (-others[ending], ending))
    parts = [f"{others[each]} {_named(each)}" for each in kinds[:_KINDS]]
    rest = sum(others[each] for each in kinds[_KINDS:])
    if rest:
        parts.append(f"{rest} of other kinds")
    count = sum(others.values())
    words = f"{count} other file{'s' if count > 1 else ''} ({', '.join(parts)})" if parts else ""
    if HEIC & others.keys():
        words += "; .heic is read after: pip install '.[heic]'"
    if MEDICAL & others.keys():
        words += "; .dcm and .nii are read after: pip install '.[medical]'"
    if litter:
        names = ", ".join(sorted({printable(name) for name in litter}))
        words += (
            f"{'; ' if words else ''}{sum(litter.values())} skipped as thumbnails or a drive's own ({names})"
        )
    return words


def worth_a_warning(others: Mapping[str, int]) -> bool:
    """Whether among what was not looked at is something that may be a picture."""
    return bool((IMAGE_LIKE | {""}) & others.keys())


def _named(ending: str) -> str:
    return printable(ending)[:_ENDING] if ending else "without an ending"
