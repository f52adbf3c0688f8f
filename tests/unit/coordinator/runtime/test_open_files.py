"""How fast something may come, and how many files may be open."""

from __future__ import annotations

import resource
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from coordinator.runtime.rate_limit import PaceLimit


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    pace = PaceLimit(rate=10, burst_seconds=2)
    assert max(pace.seconds_to_wait(1, 0.0) for _ in range(20)) < 1e-9
    waits = [round(pace.seconds_to_wait(1, 0.0), 6) for _ in range(3)]
    assert waits == [0.1, 0.2, 0.3]
    # After some quiet the burst is there again.
    assert pace.seconds_to_wait(1, 100.0) == 0.0


@given(
    st.floats(0.1, 1000),
    st.floats(0, 60),
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 50)), max_size=50),
)
def test_who_waits_as_told_never_exceeds_the_rate(
    rate: float, burst: float, steps: list[tuple[float, int]]
) -> None:
    pace = PaceLimit(rate=rate, burst_seconds=burst)
    now, taken = 0.0, 0.0
    for pause, units in steps:
        # What was let through before this one fits the rate, the burst and the one that was owed.
        assert taken <= rate * (now + burst) * (1 + 1e-9) + 1e-6
        now += pause
        taken += units
        now += pace.seconds_to_wait(units, now)


def test_the_limit_on_open_files_is_raised_and_said_if_it_is_too_low() -> None:
    script = """
import resource
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 512))
from coordinator.runtime.open_files import raise_limit
from ssd.daemon.logs import configure
configure("info", "json")
assert raise_limit(200) == 512 == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
print("enough so far", flush=True)
raise_limit(10_000)
"""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 512
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    said = done.stdout + done.stderr
    assert said.count("few_open_files") == 1
    assert "LimitNOFILE" in said
