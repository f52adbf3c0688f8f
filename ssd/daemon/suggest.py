"""Names the operator may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_CUTOFF = 0.6
_LONGEST_LIST = 20


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest valid one, or else what is valid.

    Args:
        name: what was written.
        valid: what could have been; of more than 20 only the first ones are told.
    """
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=_CUTOFF)
    if close:
        return f"; did you mean {close[0]}?"
    if not names:
        return ""
    rest = f" and {len(names) - _LONGEST_LIST} more" if len(names) > _LONGEST_LIST else ""
    return f"; valid are {', '.join(names[:_LONGEST_LIST])}{rest}"
