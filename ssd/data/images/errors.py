"""The errors of data sets. Each message tells the person who can repair the data what to do."""

from __future__ import annotations

from collections.abc import Iterable

from ssd.daemon.suggest import nearest


class DataError(ValueError):
    """Images, labels or a partition cannot be used; the message names the path and what to do."""


class FolderChanged(DataError):
    """A file of a folder is not what it was when the folder was looked through; looking again finds what is there."""


def unknown_client(client_id: str, known: Iterable[str], where: str) -> DataError:
    """The error for a client that `where` (a file or a configuration table) does not name."""
    names = list(known)
    return DataError(
        f"client {client_id!r} is not in {where}, which names {len(names)} clients{nearest(client_id, names)}"
    )
