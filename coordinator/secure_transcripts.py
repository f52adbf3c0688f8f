"""Transcripts of opened rounds for `ssd-coordinator audit`: one file each, complete as soon as it is there.

Each continues the one of the round opened before it: whoever keeps one notices if an older one is changed or gone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from coordinator.store.failures import storage_failed
from ssd.secagg import transcript
from ssd.secagg.errors import MalformedMessage


class Transcripts:
    """Files in one directory, named by round and round id.

    Args:
        root: made when it is needed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def keep(self, round_number: int, round_id: bytes, messages: Sequence[bytes]) -> None:
        """Write a round's transcript. Nothing in it is secret. A second time for one round changes nothing.

        Raises:
            StorageFailed: the medium refused.
        """
        path = self._root / f"round-{round_number:06d}-{round_id.hex()}.transcript"
        part = path.with_suffix(".part")
        try:
            if path.exists():
                return
            self._root.mkdir(parents=True, exist_ok=True)
            content = transcript.write(messages, self._head())
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
        except OSError as error:
            raise storage_failed(error, path, "keeping a round's transcript") from error

    def _head(self) -> bytes:
        """Of the newest transcript; a new chain begins if there is none, or none that can be read."""
        files = sorted(self._root.glob("round-*.transcript"))
        try:
            return transcript.read(files[-1].read_bytes()).head if files else transcript.NO_HEAD
        except MalformedMessage:
            return transcript.NO_HEAD
