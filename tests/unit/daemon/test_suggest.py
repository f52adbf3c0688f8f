"""What is said about a name that does not exist."""

from __future__ import annotations

from ssd.daemon.suggest import nearest


def test_a_near_name_is_proposed_alone() -> None:
    assert nearest("cohort_sise", ["rounds", "cohort_size"]) == "; did you mean cohort_size?"


def test_without_a_near_name_all_are_listed_in_order() -> None:
    assert nearest("zzz", ["wait_seconds", "every"]) == "; valid are every, wait_seconds"
    assert nearest("zzz", []) == ""


def test_a_name_with_little_in_common_is_not_proposed() -> None:
    # Three letters of six: a cut-off of 0.5 would propose it.
    assert nearest("abcxyz", ["abcdef"]) == "; valid are abcdef"


def test_a_long_list_is_cut() -> None:
    told = nearest("zzz", (f"client-{number:04}" for number in range(1000)))
    assert told.endswith("client-0018, client-0019 and 980 more")
    assert len(told) < 400
