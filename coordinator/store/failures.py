"""Turns failures of the medium into sentences an operator can act on."""

from __future__ import annotations

import errno
from pathlib import Path

from coordinator.errors import StorageFailed

_ADVICE = {
    errno.ENOSPC: "the disk is full: free space on it, then start the coordinator again; nothing committed is lost",
    errno.EDQUOT: "the disk quota is used up: raise it or free space, then start the coordinator again",
    errno.EROFS: "the file system is mounted read-only: remount it writable or choose another state_dir",
    errno.EACCES: "permission denied: give the coordinator's user read and write access to it",
    errno.EPERM: "not permitted: give the coordinator's user read and write access to it",
    errno.EIO: "the device reports an input/output error: check the disk, restore the state directory if need be",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
    errno.ENFILE: "the system has too many open files: raise fs.file-max",
    errno.ENOTDIR: "a part of the path is not a directory: choose another state_dir",
}


def storage_failed(error: OSError, path: Path, doing: str) -> StorageFailed:
    """The `StorageFailed` for an operating-system error.

    Args:
        error: what the system said.
        path: the file or directory concerned.
        doing: a verb phrase, for example "writing a blob".
    """
    said = error.strerror or str(error)
    advice = _ADVICE.get(error.errno or 0, f"{said}: put this right, then start the coordinator again")
    return StorageFailed(f"{path}: {doing} failed: {advice}")
