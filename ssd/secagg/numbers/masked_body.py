"""The wire body of a masked vector: its narrow elements, then its wide ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssd.secagg.numbers.masked_plan import WIDE_NBYTES, MaskedPlan
from ssd.secagg.numbers.mod_ring import ModRing


def read_body(
    plan: MaskedPlan, narrow: NDArray[np.uint32], wide: NDArray[np.int64], start: int, stop: int
) -> bytes:
    """Return bytes `start` to `stop` (exclusive) of the wire body.

    Args:
        plan: the layout.
        narrow: the narrow elements, shape (plan.narrow_size,).
        wide: the wide elements, shape (plan.wide_size,).
        start: the first byte, at least 0.
        stop: the end, at most plan.nbytes.
    """
    ring = ModRing(plan.settings.ring_bits, plan.settings.clip)
    width, boundary = plan.value_nbytes, plan.narrow_nbytes
    parts = []
    if start < boundary:
        end = min(stop, boundary)
        first = start // width
        packed = ring.pack_array(narrow[first : -(-end // width)])
        parts.append(packed[start - first * width : end - first * width].tobytes())
    if stop > boundary:
        begin = max(start, boundary) - boundary
        first = begin // WIDE_NBYTES
        elements = wide[first : -(-(stop - boundary) // WIDE_NBYTES)].astype("<i8", copy=False).view(np.uint8)
        skipped = first * WIDE_NBYTES
        parts.append(elements[begin - skipped : stop - boundary - skipped].tobytes())
    return parts[0] if len(parts) == 1 else b"".join(parts)
