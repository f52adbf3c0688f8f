"""Masked uploads on disk until their sum is open, so that a restart can go on with a journaled set.

One directory an attempt, named by its round id; one file a worker, named by the worker's and the content's digests,
complete as soon as it is there. What lies here is masked: without the participants' shares it says nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coordinator.errors import BlobCorrupt, BlobMissing
from coordinator.store.failures import storage_failed
from ssd.digest import CHUNK_BYTES, BlobHasher, byte_view
from ssd.files import no_link, sync_folder


class MaskedSpool:
    """The masked uploads of the present attempt.

    Args:
        root: made when it is needed; nobody else writes there.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, round_id: bytes, worker: str, body: NDArray[np.uint8]) -> None:
        """Keep a worker's upload: on disk when this returns. What it had kept before under this id is replaced.

        Raises:
            StorageFailed: the medium refused; nothing is kept under its name.
        """
        folder = self._folder(round_id)
        part = folder / f"{_of(worker)}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            hasher = BlobHasher()
            with open(part, "wb", opener=no_link) as file:
                for start in range(0, body.size, CHUNK_BYTES):
                    piece = byte_view(body[start : start + CHUNK_BYTES])
                    hasher.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            for older in folder.glob(f"{_of(worker)}-*"):
                older.unlink()
            part.rename(folder / f"{_of(worker)}-{hasher.finish()[2]}")
            sync_folder(folder)
            sync_folder(self._root)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise storage_failed(error, folder, "keeping a masked upload") from error

    def get(self, round_id: bytes, worker: str) -> NDArray[np.uint8]:
        """A worker's upload, memory-mapped and verified.

        Raises:
            BlobMissing, BlobCorrupt: it is not there, or not what was put.
        """
        found = list(self._folder(round_id).glob(f"{_of(worker)}-*"))
        if not found:
            raise BlobMissing(f"the masked upload of worker {worker} is not in {self._folder(round_id)}")
        (path,) = found
        body: NDArray[np.uint8] = np.memmap(path, np.uint8, mode="r")
        hasher = BlobHasher()
        for start in range(0, body.size, CHUNK_BYTES):
            hasher.update(byte_view(body[start : start + CHUNK_BYTES]))
        if hasher.finish()[2] != path.name.rpartition("-")[2]:
            raise BlobCorrupt(f"the masked upload {path} is damaged")
        return body

    def drop_all_but(self, round_id: bytes | None) -> None:
        """Remove every attempt's uploads, except this one's. What cannot be removed stays for the next time."""
        keep = None if round_id is None else self._folder(round_id).name
        with contextlib.suppress(FileNotFoundError):
            for folder in self._root.iterdir():
                if folder.name != keep:
                    shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, round_id: bytes) -> Path:
        return self._root / round_id.hex()


def _of(worker: str) -> str:
    return hashlib.sha256(worker.encode()).hexdigest()[:32]
