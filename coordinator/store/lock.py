"""One process per state directory, enforced with an advisory lock the kernel drops when the process dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from coordinator.errors import StateDirectoryLocked
from coordinator.store.failures import storage_failed


class StateDirectoryLock:
    """Holds `<state_dir>/lock` from construction until `release` or process death.

    The file itself stays: removing it would let two processes lock two different files of the same name.

    Raises:
        StateDirectoryLocked: another process holds it; the message names its process id.
        StorageFailed: the directory cannot be created or the file cannot be written.
    """

    def __init__(self, state_dir: Path) -> None:
        path = state_dir / "lock"
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise storage_failed(error, path, "locking the state directory") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip() or "unknown"
            self.release()
            raise StateDirectoryLocked(
                f"{state_dir} is in use by another coordinator (process {holder}): "
                "stop that one first, or give this one its own state_dir"
            ) from error
        except OSError as error:
            self.release()
            raise storage_failed(error, path, "locking the state directory") from error
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode("ascii"), 0)
        except OSError as error:
            self.release()
            raise storage_failed(error, path, "locking the state directory") from error

    def release(self) -> None:
        """Gives the directory up; idempotent."""
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):
                os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
