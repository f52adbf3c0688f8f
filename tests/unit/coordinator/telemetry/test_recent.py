"""What people see of a run that does not get on: the sentence about a round that comes to nothing again and again."""

from __future__ import annotations

from coordinator.telemetry.recent import LONGEST_REASON, STUCK_AFTER, RecentStatus


def test_a_round_that_comes_to_nothing_again_and_again_is_said_with_the_setting_to_change() -> None:
    recent = RecentStatus()
    for _ in range(STUCK_AFTER - 1):
        recent.abandoned(7, "deadline with 0 of 2 updates")
    assert recent.stuck(7, 5.0) == ""
    recent.abandoned(7, "deadline with 1 of 2 updates")
    assert recent.stuck(7, 5.0) == (
        "round 7: 3 attempts came to nothing, the last one: deadline with 1 of 2 updates; "
        "if clients need longer, raise [round] deadline_seconds (it is 5)"
    )
    # The next round has a record of its own, and another reason no such advice.
    assert recent.stuck(8, 5.0) == ""
    for _ in range(STUCK_AFTER):
        recent.abandoned(8, "only 0 clients could report")
    assert (
        recent.stuck(8, 5.0)
        == "round 8: 3 attempts came to nothing, the last one: only 0 clients could report"
    )
    assert recent.stuck(7, 5.0) == ""


def test_a_long_reason_is_cut() -> None:
    recent = RecentStatus()
    for _ in range(STUCK_AFTER):
        recent.abandoned(1, "x" * 10_000)
    assert len(recent.stuck(1, 5.0)) < LONGEST_REASON + 100
