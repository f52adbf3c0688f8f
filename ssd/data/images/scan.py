"""Finding the images under a folder and deciding, once, which of them can be used.

Every file is decoded completely the first time it is seen; the outcome is kept in an index file under its relative
path, size and modification time, so later scans only look at the file system. Training therefore never meets a
broken image by surprise, and the set and order of images is the same in every round.

`ssd.data.images.walk` says what is looked at at all, and in which order; nothing is opened that is not a regular file.
"""

from __future__ import annotations

import json
import logging
import operator
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import __version__ as pillow_version

from ssd.data.containers.protocol import Container
from ssd.data.containers.tree import FolderTree
from ssd.data.images.decode import MAX_PIXELS, Opener, Refusal, RefusedImageError, measure
from ssd.data.images.deep import Extremes, Window, narrowness, outside
from ssd.data.images.walk import Walk, left_alone, printable
from ssd.data.medical.plane import ALL_PLANES, Axis, Planes
from ssd.digest import digest_bytes
from ssd.files import write_atomically

INDEX_FORMAT = "ssd-image-index"
INDEX_VERSION = 3
"""3: with the number of frames, and the range that values of more than 8 bits can have."""
_SAVE_SECONDS = 2.0
"""What was checked is kept so often, so that a scan which is stopped goes on where it was."""
_SAVE_SHARE = 0.05
"""At most so much of the time goes into keeping it."""
_AT_ONCE = 16
_SAY_SECONDS = 5.0
_EXAMPLES = 5
# Permissions, the limit of pixels and the window can change without a trace in a file's size or time.
_NOT_REMEMBERED = (Refusal.UNREADABLE, Refusal.TOO_MANY_PIXELS, Refusal.RANGE)
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
    frame: int = 0
    """Which plane of a volume, or frame of a DICOM file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanReport:
    """The result of a scan, in a form that a person can read."""

    root: Path
    accepted: int
    """Images; of a volume each plane is one."""
    refused: Mapping[Refusal, int]
    examples: Mapping[Refusal, tuple[str, ...]]
    """The first names of each kind, printable."""
    others: Mapping[str, int]
    """Files whose name does not end like an image's, by ending."""
    litter: Mapping[str, int]
    """What drives and desktops leave behind (`ssd.data.images.walk.LITTER`), by name."""
    narrow: str
    """A sentence if images of more than 8 bits use little of their range; empty: they do not."""
    unreadable_folders: tuple[str, ...]
    decoded: int
    """Files decoded in this scan; the rest was known from the index."""
    folders: Mapping[str, int]
    """Every folder that was looked through -> its modification time in ns."""

    def __str__(self) -> str:
        parts = [f"{self.accepted} images under {self.root}"]
        for refusal, count in self.refused.items():
            parts.append(f"{count} {refusal.value} (first: {', '.join(self.examples[refusal])})")
        if self.unreadable_folders:
            parts.append(
                f"{len(self.unreadable_folders)} folders could not be read "
                f"(first: {', '.join(self.unreadable_folders[:_EXAMPLES])})"
            )
        alone = left_alone(self.others, self.litter)
        return "; ".join([*parts, *(each for each in (alone, self.narrow) if each)])

    @property
    def other_files(self) -> int:
        """How many `others` there are."""
        return sum(self.others.values())


def scan(
    place: Path | Container,
    *,
    index_dir: Path | None = None,
    min_side: int = 1,
    max_pixels: int = MAX_PIXELS,
    window: Window | None = None,
    classes: Sequence[str] | None = None,
    planes: Planes = ALL_PLANES,
    threads: int = 2,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[tuple[ImageFile, ...], ScanReport]:
    """The usable images of a folder or another container in sorted order, and what was left out and why.

    Args:
        place: the folder to search, sub-folders included, or a container.
        index_dir: where the outcome is kept between scans; None checks every file again.
        min_side: images with a shorter side than this are left out.
        max_pixels: images with more pixels than this are left out, undecoded.
        window: for pixels of more than 8 bits, see `ssd.data.images.deep`.
        classes: if given, only images below a top-level folder of one of these names are used.
        planes: which planes of volumes and frames of DICOM files are images.
        threads: files decoded at the same time.
        clock: monotonic seconds.

    Raises:
        DataError: `place` is not a folder or a container that can be read.
    """
    files_of = FolderTree(place) if isinstance(place, Path) else place
    root = files_of.path
    walked = files_of.walk()
    index_path = None if index_dir is None else _index_path(root, files_of.key + planes.key, index_dir)
    known = {} if index_path is None else _read_index(index_path)
    entries = {
        relative: known[relative]
        for relative, size, mtime_ns in walked.files
        if relative in known and known[relative][:2] == [size, mtime_ns]
    }
    todo = [file for file in walked.files if file[0] not in entries]
    refused = dict(walked.refused)
    saved = said = clock()
    pause = _SAVE_SECONDS
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(todo), _AT_ONCE):
            part = todo[start : start + _AT_ONCE]
            outcomes = pool.map(
                lambda file: _check(
                    partial(files_of.open, file[0]), file[1], max_pixels, window, planes.axis
                ),
                part,
            )
            for (relative, size, mtime_ns), (outcome, *facts) in zip(part, outcomes, strict=True):
                if outcome in _NOT_REMEMBERED:
                    refused[relative] = outcome
                else:
                    entries[relative] = [size, mtime_ns, outcome.name if outcome else None, *facts]
            done, now = start + len(part), clock()
            if index_path is not None and (now - saved >= pause or done == len(todo)):
                _write_index(index_path, root, entries)
                saved = clock()
                pause = max(_SAVE_SECONDS, (saved - now) / _SAVE_SHARE)
            if now - said >= _SAY_SECONDS or done == len(todo):
                said = now
                _log.info("checked %d of %d new images under %s", done, len(todo), printable(str(root)))

    files, narrow = _usable(walked, entries, refused, min_side, max_pixels, window, classes, planes)
    return tuple(files), _report(root, walked, len(files), refused, len(todo), narrow)


def _usable(
    walked: Walk,
    entries: Mapping[str, list[Any]],
    refused: dict[str, Refusal],
    min_side: int,
    max_pixels: int,
    window: Window | None,
    classes: Sequence[str] | None,
    planes: Planes,
) -> tuple[list[ImageFile], str]:
    """The images that the options let in, and a warning if they use little of their range; the others into `refused`."""
    files: list[ImageFile] = []
    deep: Extremes | None = None
    for relative, size, mtime_ns in walked.files:
        if relative in refused:
            continue
        _, _, name, width, height, numbers, frames = entries[relative]
        seen = None if numbers is None else _extremes(numbers)
        outcome = Refusal[name] if name else _judge(relative, width, height, min_side, max_pixels, classes)
        if outcome is None and window is None and seen is not None and outside(seen):
            outcome = Refusal.RANGE  # it was looked at when there was a window
        if outcome is None:
            deep = deep if seen is None else seen.joined(deep)
            files += [
                ImageFile(
                    relative=relative, size=size, mtime_ns=mtime_ns, width=width, height=height, frame=frame
                )
                for frame in planes.chosen(frames)
            ]
        else:
            refused[relative] = outcome
    return files, narrowness(deep, window)


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


def _check(
    opener: Opener, size: int, max_pixels: int, window: Window | None, axis: Axis
) -> tuple[Refusal | None, int, int, list[Any] | None, int]:
    """Why a file cannot be used, or None; its width and height; extremes of deep pixels, as the index keeps them; the
    number of frames.
    """
    if size == 0:
        return Refusal.EMPTY, 0, 0, None, 1
    try:
        found = measure(opener, max_pixels, window, axis)
    except RefusedImageError as error:
        return error.refusal, 0, 0, None, 1
    deep = found.extremes
    numbers = None if deep is None else [deep.low, deep.high, deep.floating, deep.scale and list(deep.scale)]
    return None, found.width, found.height, numbers, found.frames


def _extremes(numbers: Sequence[Any]) -> Extremes:
    """What the index keeps; raises TypeError or ValueError for anything else."""
    low, high, floating, scale = numbers
    declared = None if scale is None else (float(scale[0]), float(scale[1]))
    return Extremes(float(low), float(high), bool(floating), declared)


def _report(
    root: Path, walked: Walk, accepted: int, refused: Mapping[str, Refusal], decoded: int, narrow: str
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
        others=dict(walked.others),
        litter=dict(walked.litter),
        narrow=narrow,
        unreadable_folders=tuple(printable(folder) for folder in sorted(walked.unreadable)),
        decoded=decoded,
        folders=dict(walked.folders),
    )


def _index_path(root: Path, key: str, index_dir: Path) -> Path:
    resolved = root.resolve()
    readable = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in resolved.name)
    return (
        index_dir / f"images-{readable[:40]}-{digest_bytes(os.fsencode(resolved) + key.encode())[:16]}.json"
    )


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
        for size, mtime_ns, name, width, height, deep, frames in files.values():
            # Each raises for anything but a whole number or a known name.
            for number in (size, mtime_ns, width, height, frames):
                operator.index(number)
            if name is not None:
                Refusal[name]
            if deep is not None:
                _extremes(deep)
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
