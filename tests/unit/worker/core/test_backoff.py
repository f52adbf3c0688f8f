"""Waits between tries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.core.backoff import Backoff


def test_waits_grow_to_the_cap_and_jitter_covers_the_whole_range() -> None:
    backoff = Backoff(first=0.5, factor=2.0, cap=8.0)
    assert [backoff.seconds(n, 1.0) for n in range(1, 8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert backoff.seconds(4, 0.0) == 0.0
    assert backoff.seconds(4, 0.25) == 1.0


@given(st.integers(1, 10**9), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_never_negative_nor_over_the_cap(failures: int, uniform: float) -> None:
    assert 0.0 <= Backoff(cap=30.0).seconds(failures, uniform) <= 30.0
