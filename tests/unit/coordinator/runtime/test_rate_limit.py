"""Strangers may ask as often as they are allowed to, alone and together; refused ones cost nobody anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.runtime.rate_limit import REMEMBERED_HOSTS, AdmissionLimit, Allowance, network_of

FEW = Allowance(burst=3, per_second=1.0)
MANY = Allowance(burst=1000, per_second=1000.0)


def test_a_burst_goes_through_then_the_rate_holds() -> None:
    admission = AdmissionLimit(FEW, MANY)
    assert [admission.admit("a", 10.0) for _ in range(5)] == [True, True, True, False, False]
    assert [admission.admit("a", 11.0) for _ in range(2)] == [True, False]
    assert [admission.admit("a", 1000.0) for _ in range(4)] == [True, True, True, False]


def test_hosts_do_not_take_from_one_another_but_all_together_have_an_end() -> None:
    admission = AdmissionLimit(FEW, Allowance(burst=5, per_second=1.0))
    assert [admission.admit("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert [admission.admit("b", 0.0) for _ in range(3)] == [True, True, False]
    # What was refused for the sake of all was not taken from b.
    assert admission.admit("b", 1.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5)), max_size=300))
def test_never_more_than_burst_and_rate_allow(calls: list[tuple[str, float]]) -> None:
    admission = AdmissionLimit(FEW, Allowance(burst=6, per_second=2.0))
    now, let = 0.0, {"a": 0, "b": 0, "c": 0}
    for host, wait in calls:
        now += wait
        let[host] += admission.admit(host, now)
        assert let[host] <= 3 + now * 1.0 + 1e-6
        assert sum(let.values()) <= 6 + now * 2.0 + 1e-6


def test_a_clock_that_steps_back_gives_nothing_away() -> None:
    admission = AdmissionLimit(FEW, MANY)
    assert [admission.admit("a", now) for now in (10.0, 5.0, 1.0, 0.0)] == [True, True, True, False]


def test_what_is_remembered_of_hosts_is_bounded_and_the_busy_stay_known() -> None:
    admission = AdmissionLimit(FEW, Allowance(burst=10**6, per_second=1.0))
    assert all(admission.admit("busy", 0.0) for _ in range(3))
    for number in range(3 * REMEMBERED_HOSTS):
        admission.admit(f"host-{number}", 0.0)
        if number % 1000 == 0:
            assert not admission.admit("busy", 0.0)
    assert len(admission._hosts) <= REMEMBERED_HOSTS


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_host_is_an_address_or_the_network_it_can_take_addresses_from(address: str, host: str) -> None:
    assert network_of(address) == host
