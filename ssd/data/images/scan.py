"""Finding the images under a folder and deciding, once, which of them can be used.

Every file is decoded completely the first time it is seen; the outcome is kept in an index file under its relative
path, size and modification time, so later scans only look at the file system. Training therefore never meets a
broken image by surprise, and the set and order of images is the same in every round.

The scan follows symbolic links but enters no folder twice (a link to a parent ends there), opens nothing that is not
a regular file, skips hidden names, and sorts by relative path, code point by code point, whatever the locale.
"""

from __future__ import annotations

import json
import logging
import operator
import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import __version__ as pillow_version

from ssd.data.images.decode import EXTENSIONS, MAX_PIXELS, Refusal, RefusedImageError, measure
from ssd.data.images.errors import DataError
from ssd.digest import digest_bytes
from ssd.files import write_atomically

INDEX_FORMAT = "ssd-image-index"
INDEX_VERSION = 1
_SAVE_EVERY = 2000
_EXAMPLES = 5
# Permissions and the pixel limit can change without a trace in a file's size or time.
_NOT_REMEMBERED = (Refusal.UNREADABLE, Refusal.TOO_MANY_PIXELS)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFile:
    """A usable image: where it is and what it was when it was checked."""

    relative: str
    """Path below the root with forward slashes; undecodable bytes as surrogates, as `os.fsdecode` gives them."""
    size: int
    mtime_ns: int
    width: int
    height: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanReport:
    """The result of a scan, in a form that a person can read."""

    root: Path
    accepted: int
    refused: Mapping[Refusal, int]
    examples: Mapping[Refusal, tuple[str, ...]]
    """The first names of each kind, printable."""
    other_files: int
    """Files whose name does not end like an image's."""
    unreadable_folders: tuple[str, ...]
    decoded: int
    """Files decoded in this scan; the rest was known from the index."""

    def __str__(self) -> str:
        parts = [f"{self.accepted} images under {self.root}"]
        for refusal, count in self.refused.items():
            parts.append(f"{count} {refusal.value} (first: {', '.join(self.examples[refusal])})")
        if self.unreadable_folders:
            parts.append(
                f"{len(self.unreadable_folders)} folders could not be read "
                f"(first: {', '.join(self.unreadable_folders[:_EXAMPLES])})"
            )
        if self.other_files:
            parts.append(f"{self.other_files} other files")
        return "; ".join(parts)


@dataclass(slots=True)
class _Walk:
    files: list[tuple[str, int, int]]
    """(relative, size, mtime_ns) of regular files named like images."""
    refused: dict[str, Refusal]
    unreadable: list[str]
    other: int = 0


def scan(
    root: Path,
    *,
    index_dir: Path | None = None,
    min_side: int = 1,
    max_pixels: int = MAX_PIXELS,
    classes: Sequence[str] | None = None,
    threads: int = 2,
) -> tuple[tuple[ImageFile, ...], ScanReport]:
    """The usable images under `root` in sorted order, and what was left out and why.

    Args:
        root: the folder to search, sub-folders included.
        index_dir: where the outcome is kept between scans; None checks every file again.
        min_side: images with a shorter side than this are left out.
        max_pixels: images with more pixels than this are left out, undecoded.
        classes: if given, only images below a top-level folder of one of these names are used.
        threads: files decoded at the same time.

    Raises:
        DataError: `root` is not a folder that can be read.
    """
    walk = _walk(root)
    index_path = None if index_dir is None else _index_path(root, index_dir)
    known = {} if index_path is None else _read_index(index_path)
    entries = {
        relative: known[relative]
        for relative, size, mtime_ns in walk.files
        if relative in known and known[relative][:2] == [size, mtime_ns]
    }
    todo = [file for file in walk.files if file[0] not in entries]
    refused = dict(walk.refused)
    for start in range(0, len(todo), _SAVE_EVERY):
        part = todo[start : start + _SAVE_EVERY]
        with ThreadPoolExecutor(threads) as pool:
            outcomes = list(pool.map(lambda file: _check(root / file[0], file[1], max_pixels), part))
        for (relative, size, mtime_ns), (outcome, width, height) in zip(part, outcomes, strict=True):
            if outcome in _NOT_REMEMBERED:
                refused[relative] = outcome
            else:
                entries[relative] = [size, mtime_ns, outcome.name if outcome else None, width, height]
        if index_path is not None:
            _write_index(index_path, root, entries)
        _log.info("checked %d of %d new images under %s", start + len(part), len(todo), printable(str(root)))

    files = []
    for relative, size, mtime_ns in walk.files:
        if relative in refused:
            continue
        _, _, name, width, height = entries[relative]
        outcome = Refusal[name] if name else _judge(relative, width, height, min_side, max_pixels, classes)
        if outcome is None:
            files.append(
                ImageFile(relative=relative, size=size, mtime_ns=mtime_ns, width=width, height=height)
            )
        else:
            refused[relative] = outcome
    return tuple(files), _report(root, walk, len(files), refused, len(todo))


def printable(name: str) -> str:
    """A file name that any terminal or log can take: bytes that are no text become escapes."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _judge(
    relative: str, width: int, height: int, min_side: int, max_pixels: int, classes: Sequence[str] | None
) -> Refusal | None:
    """Returns why the options exclude an image that decodes, or None if it can be used."""
    if width * height > max_pixels:
        return Refusal.TOO_MANY_PIXELS
    if min(width, height) < min_side:
        return Refusal.TOO_SMALL
    if classes is not None and ("/" not in relative or relative.split("/")[0] not in classes):
        return Refusal.UNLABELLED
    return None


def _walk(root: Path) -> _Walk:
    walk = _Walk(files=[], refused={}, unreadable=[])
    try:
        top = os.stat(root)
        with os.scandir(root):
            pass
    except OSError as error:
        raise DataError(f"cannot read the image folder {root}: {error.strerror or error}") from error
    entered = {(top.st_dev, top.st_ino)}
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as listing:
                names = sorted(entry.name for entry in listing if not entry.name.startswith("."))
        except OSError:
            walk.unreadable.append(folder)
            continue
        inside = []
        for name in names:
            relative = f"{folder}/{name}" if folder else name
            image = os.path.splitext(name)[1].lower() in EXTENSIONS
            try:
                status = os.stat(root / relative)
            except OSError:
                # A broken link, a link to itself, a name that vanished or may not be looked at.
                walk.other += not image
                if image:
                    walk.refused[relative] = Refusal.UNREADABLE
                continue
            if stat.S_ISDIR(status.st_mode):
                if (status.st_dev, status.st_ino) not in entered:
                    entered.add((status.st_dev, status.st_ino))
                    inside.append(relative)
            elif not image:
                walk.other += 1
            elif not stat.S_ISREG(status.st_mode):
                walk.refused[relative] = Refusal.NOT_A_FILE
            else:
                walk.files.append((relative, status.st_size, status.st_mtime_ns))
        folders += reversed(inside)
    walk.files.sort()
    return walk


def _check(path: Path, size: int, max_pixels: int) -> tuple[Refusal | None, int, int]:
    if size == 0:
        return Refusal.EMPTY, 0, 0
    try:
        width, height = measure(path, max_pixels)
    except RefusedImageError as error:
        return error.refusal, 0, 0
    return None, width, height


def _report(
    root: Path, walk: _Walk, accepted: int, refused: Mapping[str, Refusal], decoded: int
) -> ScanReport:
    counts = Counter(refused.values())
    examples: dict[Refusal, list[str]] = {}
    for relative in sorted(refused):
        names = examples.setdefault(refused[relative], [])
        if len(names) < _EXAMPLES:
            names.append(printable(relative))
    return ScanReport(
        root=root,
        accepted=accepted,
        refused={refusal: counts[refusal] for refusal in Refusal if counts[refusal]},
        examples={refusal: tuple(names) for refusal, names in examples.items()},
        other_files=walk.other,
        unreadable_folders=tuple(printable(folder) for folder in sorted(walk.unreadable)),
        decoded=decoded,
    )


def _index_path(root: Path, index_dir: Path) -> Path:
    resolved = root.resolve()
    readable = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in resolved.name)
    return index_dir / f"images-{readable[:40]}-{digest_bytes(os.fsencode(resolved))[:16]}.json"


def _read_index(path: Path) -> dict[str, list[Any]]:
    """The entries of an index file; none if it is missing, damaged or made by another decoder."""
    try:
        value = json.loads(path.read_text(encoding="ascii"))
        if (value["format"], value["version"], value["pillow"]) != (
            INDEX_FORMAT,
            INDEX_VERSION,
            pillow_version,
        ):
            return {}
        files: dict[str, list[Any]] = value["files"]
        for size, mtime_ns, name, width, height in files.values():
            # Each raises for anything but a whole number or a known name.
            for number in (size, mtime_ns, width, height):
                operator.index(number)
            if name is not None:
                Refusal[name]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning("the image index %s cannot be used (%s) and is made again", path, error)
        return {}
    return files


def _write_index(path: Path, root: Path, entries: Mapping[str, list[Any]]) -> None:
    rows = ",\n".join(f"    {json.dumps(name)}: {json.dumps(entries[name])}" for name in sorted(entries))
    head = {
        "format": INDEX_FORMAT,
        "version": INDEX_VERSION,
        "pillow": pillow_version,
        "root": printable(str(root)),
    }
    text = json.dumps(head, indent=2)[:-2] + ',\n  "files": {\n' + rows + "\n  }\n}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())
