"""Room and rights in a state directory, and whether a process is using it. Nothing is written to find out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssd.daemon.doctor.findings import Finding, fault, ok, warning

UNKNOWN_MODEL = 256 << 20
"""Bytes that a model is taken to have before there is one: a large encoder."""
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_LOCKS = Path("/proc/locks")


@dataclass(frozen=True, kw_only=True, slots=True)
class DiskFacts:
    """Of a state directory, or of where it would be made."""

    folder: Path
    exists: bool
    obstacle: str = ""
    """Why it cannot be a directory; empty: it can."""
    writable: bool = True
    free_bytes: int = 0


def gather_disk(folder: Path) -> DiskFacts:
    """Looks at the folder, or at the nearest one above it that is there."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return DiskFacts(folder=folder, exists=False, obstacle=f"{there} is not a folder")
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return DiskFacts(folder=folder, exists=folder.is_dir(), obstacle=error.strerror or str(error))
    return DiskFacts(
        folder=folder, exists=folder.is_dir(), writable=os.access(there, os.W_OK | os.X_OK), free_bytes=free
    )


def judge_disk(facts: DiskFacts, needed_bytes: int, what_for: str) -> Iterator[Finding]:
    """Finding `disk`.

    Args:
        facts: of the folder.
        needed_bytes: free space without which the daemon stops.
        what_for: what the space is for.
    """
    if facts.obstacle:
        yield fault("disk", f"{facts.folder}: {facts.obstacle}", "choose another state_dir")
        return
    if not facts.writable:
        yield fault(
            "disk", f"{facts.folder} cannot be written by this user",
            f"chown it to the daemon's user ({os.geteuid()} is looking), or remount its file system writable",
        )  # fmt: skip
        return
    said = f"{facts.folder}{'' if facts.exists else ' (to be made)'}: {size(facts.free_bytes)} free"
    needs = f"{size(needed_bytes)} are wanted for {what_for}"
    if facts.free_bytes < needed_bytes:
        yield fault("disk", f"{said}, {needs}", "free space, or choose a state_dir on a larger disk")
    elif facts.free_bytes < 2 * needed_bytes:
        yield warning("disk", f"{said}, {needs}", "that is close: free space before the disk is full")
    else:
        yield ok("disk", f"{said}, {needs}")


def holder(lock_file: Path, locks: Path = _LOCKS) -> int | None:
    """The process that holds a lock file, as Linux tells without the file being touched; None: nobody does."""
    try:
        told = lock_file.stat()
        lines = locks.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        # "1: FLOCK ADVISORY WRITE 812 08:01:2097 0 EOF"; a waiting process has "->" in second place.
        if len(fields) < 6 or fields[1] != "FLOCK":
            continue
        major, minor, inode = fields[5].split(":")
        if (os.makedev(int(major, 16), int(minor, 16)), int(inode)) == (told.st_dev, told.st_ino):
            return int(fields[4])
    return None


def size(nbytes: float) -> str:
    """A number of bytes with a unit."""
    unit = 0
    while nbytes >= 1024 and unit < len(_UNITS) - 1:
        nbytes, unit = nbytes / 1024, unit + 1
    return f"{nbytes:.0f} {_UNITS[unit]}" if unit == 0 else f"{nbytes:.1f} {_UNITS[unit]}"
