"""Names the operator may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def nearest(name: str, valid: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: the nearest valid one, or all of them."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else f"; valid are {', '.join(sorted(valid))}"
