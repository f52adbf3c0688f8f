"""Random lists of operations, for hypothesis. What it shrinks towards stands first everywhere."""

from __future__ import annotations

from hypothesis import strategies as st

from simulation.net.network import Act
from simulation.operations import (
    Crash,
    CrashAtWrite,
    DiskFull,
    DiskReadOnly,
    DiskSlow,
    Drain,
    Join,
    Kill,
    KillAtWrite,
    Leave,
    LoseDisk,
    Move,
    Operation,
    Pause,
    Resume,
    Revoke,
    SetClock,
    Strike,
    Wait,
)
from simulation.setting import Setting

WORKERS = st.sampled_from(["w1", "w2", "w3"])
CLIENTS = st.sampled_from(["a", "b", "c", "d"])
SOON = st.sampled_from([0.1, 0.5, 1.0, 2.0, 3.5])
LONG = st.sampled_from([1.0, 5.0, 17.0, 45.0])
POINTS = st.sampled_from(
    [
        ("Attend", True, "hello"),
        ("Attend", True, ""),
        ("Attend", False, "welcome"),
        ("Attend", False, "train"),
        ("Attend", False, "committed"),
        ("Attend", False, "cancel"),
        ("Attend", False, "run_changed"),
        ("Attend", False, ""),
        ("FetchBlob", True, "request"),
        ("FetchBlob", False, "head"),
        ("FetchBlob", False, "part"),
        ("SubmitUpdate", True, "envelope"),
        ("SubmitUpdate", True, "chunk"),
        ("SubmitUpdate", False, "proceed"),
        ("SubmitUpdate", False, "verdict"),
    ]
)
SECURE_POINTS = st.sampled_from(
    [("Attend", True, "secure_aggregation"), ("Attend", False, "secure_aggregation")]
)


def _strike(points: st.SearchStrategy[tuple[str, bool, str]]) -> st.SearchStrategy[Operation]:
    return st.builds(
        lambda act, worker, point, count, seconds: Strike(act, worker, *point, count=count, seconds=seconds),
        st.sampled_from(list(Act)),
        WORKERS,
        points,
        st.integers(1, 3),
        LONG,
    )


def operations(setting: Setting) -> st.SearchStrategy[Operation]:
    """One operation that may happen to this federation."""
    any_federation: list[st.SearchStrategy[Operation]] = [
        st.builds(Wait, SOON),
        st.builds(Wait, LONG),
        st.builds(Crash, WORKERS),
        st.builds(CrashAtWrite, WORKERS, st.integers(1, 6), st.booleans()),
        st.builds(Leave, WORKERS),
        st.builds(Join, WORKERS),
        st.builds(LoseDisk, WORKERS),
        _strike(POINTS),
        _strike(POINTS),
        _strike(POINTS),
        st.builds(Kill, LONG),
        st.builds(KillAtWrite, st.integers(1, 12), st.booleans(), st.just(""), LONG),
        st.builds(KillAtWrite, st.just(1), st.booleans(), st.sampled_from(["close_attempt", "commit"]), LONG),
        st.builds(DiskFull, LONG, st.sampled_from(["", "w1"])),
        st.builds(DiskReadOnly, LONG),
        st.builds(DiskSlow, LONG, st.sampled_from([0.1, 0.7]), st.sampled_from(["", "w1"])),
        st.builds(SetClock, st.sampled_from([3600.0, -3600.0, 1e9, -1e9])),
        st.builds(Pause),
        st.builds(Resume),
        st.builds(Drain),
        st.builds(Move, CLIENTS, WORKERS),
        st.builds(Revoke, CLIENTS),
    ]
    if setting.level != "off":
        any_federation += [_strike(SECURE_POINTS), _strike(SECURE_POINTS)]
    return st.one_of(any_federation)


def lists(setting: Setting, longest: int = 8) -> st.SearchStrategy[list[Operation]]:
    """What happens to it."""
    return st.lists(operations(setting), max_size=longest)
