"""Transcripts of opened rounds for `ssd-coordinator audit`: one file each, complete as soon as it is there.

Each continues the one of the round opened before it: whoever keeps one notices if an older one is changed or gone.
It is written before the commit, under another name, and takes its own after it: a crash between the two loses none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from pathlib import Path

from coordinator.store.failures import storage_failed
from ssd.files import no_link, sync_folder
from ssd.secagg.audit import transcript
from ssd.secagg.protocol.errors import MalformedMessage
from ssd.secagg.protocol.messages import Offer, Opened

SUFFIX, PART = ".transcript", ".part"


class _Fate(Enum):
    """What becomes of a transcript without its name after a restart."""

    KEEP = auto()
    REMOVE = auto()
    LEAVE = auto()


class Transcripts:
    """Files in one directory, named by round and round id.

    Args:
        root: made when it is needed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, round_number: int, round_id: bytes, messages: Sequence[bytes]) -> None:
        """Put a round's transcript on disk before its commit; it counts once `keep` or `recover` gave it its name.

        Nothing in it is secret.

        Raises:
            StorageFailed: the medium refused.
        """
        part = self._path(round_number, round_id).with_suffix(PART)
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            content = transcript.write(messages, self._head())
            with open(part, "wb", opener=no_link) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self._root)
        except OSError as error:
            raise storage_failed(error, part, "writing a round's transcript") from error

    def keep(self, round_number: int, round_id: bytes) -> None:
        """The round is committed: its transcript is one. A second time changes nothing.

        Raises:
            StorageFailed: the medium refused.
        """
        path = self._path(round_number, round_id)
        try:
            if not path.exists():
                path.with_suffix(PART).rename(path)
                sync_folder(self._root)
        except OSError as error:
            raise storage_failed(error, path, "keeping a round's transcript") from error

    def recover(self, models: Mapping[int, str], due: int | None) -> None:
        """After a restart: keep what was written of a round that is committed, remove what is of no commit.

        What another run left in the directory is not touched: whether its round was committed is not known here.

        Args:
            models: round -> digest of the version it made, 64 hex digits; 0: of the version the run began with.
            due: the round in flight, if there is one: what its commit needs is written again.

        Raises:
            StorageFailed: the medium refused.
        """
        try:
            for part in sorted(self._root.glob(f"round-*{PART}")):
                fate = _fate(part.read_bytes(), models, due)
                if fate is _Fate.LEAVE:
                    continue
                path = part.with_suffix(SUFFIX)
                if fate is _Fate.KEEP and not path.exists():
                    part.rename(path)
                else:
                    part.unlink()
                sync_folder(self._root)
        except OSError as error:
            raise storage_failed(error, self._root, "looking at the transcripts of rounds") from error

    def _path(self, round_number: int, round_id: bytes) -> Path:
        return self._root / f"round-{round_number:06d}-{round_id.hex()}{SUFFIX}"

    def _head(self) -> bytes:
        """Of the newest transcript; a new chain begins if there is none, or none that can be read."""
        files = sorted(self._root.glob(f"round-*{SUFFIX}"))
        try:
            return transcript.read(files[-1].read_bytes()).head if files else transcript.NO_HEAD
        except MalformedMessage:
            return transcript.NO_HEAD


def _fate(content: bytes, models: Mapping[int, str], due: int | None) -> _Fate:
    """By round and models: a round that changes nothing makes a model that was committed before it."""
    try:
        messages = transcript.read(content).messages
    except MalformedMessage:
        messages = ()
    if not messages or not isinstance(messages[0], Offer) or not isinstance(messages[-1], Opened):
        # A commit follows a whole transcript on disk: there was none.
        return _Fate.REMOVE
    offer, made = messages[0], messages[-1].next_model_digest.hex()
    if models.get(offer.round - 1) != offer.model_digest.hex():
        return _Fate.LEAVE
    if models.get(offer.round) == made:
        return _Fate.KEEP
    return _Fate.REMOVE if offer.round == due else _Fate.LEAVE
