"""What can be wrong with a data set, told to the person who has to put it right."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class DataError(ValueError):
    """Images, labels or a partition cannot be used; the message names the path and what to do."""


def unknown_client(client_id: str, known: Iterable[str], where: str) -> DataError:
    """The error for a client that `where` (a file or a configuration table) does not name."""
    names = sorted(known)
    nearest = get_close_matches(client_id, names, n=1, cutoff=0.0)
    hint = (
        f"; the nearest of its {len(names)} clients is {nearest[0]!r}" if nearest else "; it names no clients"
    )
    return DataError(f"client {client_id!r} is not in {where}{hint}")
