"""The graph's numbers: Google's published cells, our tables, the rules for the complete graph, the ring."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure.published_graphs import CELLS, INFEASIBLE, SLOW_CELLS, Cell
from ssd.secagg.protocol import graph
from ssd.secagg.protocol.graph import (
    PPM,
    GraphChoice,
    InfeasibleGraph,
    Level,
    corrupt,
    dropouts,
    fewest_survivors,
    neighbours,
    ring_order,
    search,
    search_ring,
    threshold_complete,
)

ACTIVE_SIZES = (64, 100, 200, 300, 500, 1000)
ACTIVE = {
    (0.05, 0.05): "10/7 16/11 30/21 38/27 46/33 60/44",
    (0.05, 0.10): "16/10 26/16 42/27 52/34 74/48 86/59",
    (0.10, 0.05): "14/11 22/17 40/30 48/36 56/42 74/56",
    (0.10, 0.10): "20/14 32/22 56/39 66/46 86/60 108/77",
    (0.10, 0.15): "26/17 42/27 72/47 92/61 114/76 156/106",
    (0.10, 0.20): "32/20 52/32 88/55 118/75 152/97 218/142",
    (0.20, 0.10): "26/20 42/32 76/57 94/70 116/86 158/119",
    (0.20, 0.20): "38/26 62/42 118/80 160/109 220/150 318/216",
}
GOOGLE_WHERE_LOWER = {
    (0.05, 0.05): {500: "44/31", 1000: "52/37"},
    (0.05, 0.10): {500: "66/44", 1000: "78/52"},
    (0.10, 0.05): {1000: "66/49"},
    (0.10, 0.10): {500: "82/57", 1000: "96/67"},
    (0.10, 0.15): {1000: "138/92"},
    (0.10, 0.20): {1000: "194/124"},
    (0.20, 0.10): {1000: "140/104"},
    (0.20, 0.20): {1000: "302/206"},
}
CURIOUS_SIZES = (50, 100, 200, 500, 1000)
CURIOUS = {
    (0.05, 0.05): "6/3 12/6 20/11 28/16 30/17",
    (0.10, 0.10): "12/6 22/11 34/19 42/24 48/27",
    (0.10, 0.20): "16/6 28/11 44/20 58/28 66/31",
    (0.10, 0.30): "22/6 34/11 54/21 76/31 88/36",
    (0.20, 0.20): "22/11 40/21 62/34 88/48 98/54",
    (0.33, 0.33): "34/17 68/34 122/64 214/113 286/150",
}


def ppm(fraction: float) -> int:
    return round(fraction * PPM)


def cell(n: int, gamma: float, delta: float, *, lying: bool, chosen: bool) -> str:
    a, d = n * ppm(gamma) // PPM, n * ppm(delta) // PPM
    found = search_ring(n, a, d, lying=lying, chosen_dropouts=chosen)
    assert found is not None
    return f"{found.k}/{found.t}"


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_published_cells(cell: Cell) -> None:
    a, d = cell.n * cell.corrupt // 100, cell.n * cell.dropped // 100
    assert search_ring(cell.n, a, d, lying=cell.lying, chosen_dropouts=False) == (cell.k, cell.t)


def test_all_published_cells_are_there() -> None:
    assert (len(CELLS), len(SLOW_CELLS)) == (69, 6)


@pytest.mark.parametrize(("n", "corrupt", "dropped", "lying"), INFEASIBLE)
def test_where_none_is_published_none_is_found(n: int, corrupt: int, dropped: int, lying: bool) -> None:
    assert search_ring(n, n * corrupt // 100, n * dropped // 100, lying=lying, chosen_dropouts=False) is None


@pytest.mark.parametrize("fractions", ACTIVE)
def test_the_table_for_active(fractions: tuple[float, float]) -> None:
    found = [cell(n, *fractions, lying=True, chosen=True) for n in ACTIVE_SIZES]
    assert " ".join(found) == ACTIVE[fractions]


@pytest.mark.parametrize("fractions", ACTIVE)
def test_without_the_sixth_condition_the_semi_malicious_table_is_googles(
    fractions: tuple[float, float],
) -> None:
    expected = dict(zip(ACTIVE_SIZES, ACTIVE[fractions].split(), strict=True)) | GOOGLE_WHERE_LOWER[fractions]
    assert {n: cell(n, *fractions, lying=True, chosen=False) for n in ACTIVE_SIZES} == expected


@pytest.mark.parametrize("fractions", CURIOUS)
def test_the_table_for_a_curious_coordinator(fractions: tuple[float, float]) -> None:
    found = [cell(n, *fractions, lying=False, chosen=False) for n in CURIOUS_SIZES]
    assert " ".join(found) == CURIOUS[fractions]


def test_the_search_picks_the_conditions_by_level() -> None:
    assert search(500, ppm(0.05), ppm(0.05), "active") == GraphChoice(46, 33)
    assert search(500, ppm(0.05), ppm(0.05), "passive") == GraphChoice(28, 16)


@pytest.mark.parametrize("level", list(Level))
def test_small_cohorts_get_the_complete_graph(level: Level) -> None:
    assert search(64, ppm(0.05), ppm(0.05), level).k == 63
    assert search(65, ppm(0.05), ppm(0.05), level).k < 64


def test_where_no_ring_is_safe_the_graph_is_complete() -> None:
    assert search_ring(70, 21, 24, lying=True, chosen_dropouts=True) is None
    assert search(70, ppm(0.30), ppm(0.35), "active") == GraphChoice(69, 46)


def test_corrupt_participants_are_never_rounded_to_none() -> None:
    assert corrupt(10, ppm(0.05)) == 1
    assert corrupt(10, 1) == 1
    assert corrupt(10, 0) == 0
    assert corrupt(1000, ppm(0.05)) == 50


def test_fractions_are_exact() -> None:
    # 0.29 * 100 is 28.999999999999996 as floats.
    assert corrupt(100, ppm(0.29)) == dropouts(100, ppm(0.29)) == 29
    assert fewest_survivors(100, ppm(0.29)) == 71
    assert fewest_survivors(16, ppm(0.2)) == 13


@given(st.integers(2, 400), st.integers(0, PPM - 1), st.integers(0, PPM - 1), st.sampled_from(list(Level)))
@settings(max_examples=300, deadline=None)
def test_every_threshold_of_the_complete_graph_is_safe_and_alive(
    n: int, gamma: int, delta: int, level: Level
) -> None:
    a, d = corrupt(n, gamma), dropouts(n, delta)
    least = (n + a) // 2 + 1 if level is Level.ACTIVE else a + 1
    feasible = max(least, 2) <= n - d and n - d - a >= 2
    if not feasible:
        with pytest.raises(InfeasibleGraph, match="more participants"):
            threshold_complete(n, gamma, delta, level)
        return
    t = threshold_complete(n, gamma, delta, level)
    assert a < t <= n - d
    assert t >= 2
    if level is Level.ACTIVE:
        assert 2 * t > n + a
        assert 2 * (t - 1) <= n + a or t == 2
    else:
        assert 2 * t > n or t == n - d


def test_the_papers_default_is_never_below_ours() -> None:
    """Bonawitz et al., CCS 2017: with a third corrupt, t = floor(2n/3) + 1 against a lying server."""
    for n in range(4, 300):
        a = -(-n // 3) - 1
        assert (n + a) // 2 + 1 <= 2 * n // 3 + 1


@pytest.mark.parametrize(
    ("n", "gamma", "delta", "level", "t"),
    [
        (2, 0.0, 0.0, "passive", 2),
        (3, 0.1, 0.2, "passive", 2),
        (3, 0.1, 0.2, "active", 3),
        (5, 0.1, 0.2, "active", 4),
        (10, 0.1, 0.2, "active", 6),
        (16, 0.1, 0.2, "passive", 9),
        (16, 0.1, 0.2, "active", 9),
        (100, 0.33, 0.33, "active", 67),
        (10, 0.5, 0.2, "passive", 6),
    ],
)
def test_thresholds_worked_out_by_hand(n: int, gamma: float, delta: float, level: str, t: int) -> None:
    assert threshold_complete(n, ppm(gamma), ppm(delta), level) == t


def test_two_of_whom_one_is_corrupt_hide_nothing() -> None:
    with pytest.raises(InfeasibleGraph, match="alone"):
        threshold_complete(2, ppm(0.1), 0, "passive")


@pytest.mark.parametrize(
    ("n", "gamma", "delta"), [(1, 0, 0), (0, 0, 0), (10, PPM, 0), (10, 0, PPM), (10, -1, 0), (10**6, 0, 0)]
)
def test_what_is_no_cohort_or_fraction_is_refused(n: int, gamma: int, delta: int) -> None:
    for choose in (threshold_complete, search):
        with pytest.raises(ValueError, match="participants"):
            choose(n, gamma, delta, "active")
    with pytest.raises(ValueError, match="stern"):
        threshold_complete(10, 0, 0, "stern")


def test_the_ring_order_is_frozen() -> None:
    assert ring_order(bytes(32), 10) == [8, 1, 4, 2, 9, 0, 7, 3, 5, 6]
    assert ring_order(bytes(31) + b"\1", 10) != ring_order(bytes(32), 10)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2000))
@settings(max_examples=20, deadline=None)
def test_the_ring_order_is_a_permutation(seed: bytes, n: int) -> None:
    assert sorted(ring_order(seed, n)) == list(range(n))


def test_all_orders_are_about_equally_frequent() -> None:
    counts = Counter(tuple(ring_order(i.to_bytes(32, "big"), 4)) for i in range(4800))
    # Chi-square with 23 degrees of freedom: above 75 with a probability of 2e-7.
    assert len(counts) == 24
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 75


@given(st.integers(4, 60), st.data())
@settings(max_examples=60, deadline=None)
def test_the_ring_is_regular_symmetric_and_has_no_loops(n: int, data: st.DataObject) -> None:
    k = 2 * data.draw(st.integers(1, (n - 1) // 2))
    order = ring_order(data.draw(st.binary(min_size=32, max_size=32)), n)
    joined = {i: neighbours(order, k, i) for i in range(n)}
    for i, mine in joined.items():
        assert len(set(mine)) == len(mine) == k
        assert i not in mine
        assert mine == sorted(mine)
        assert all(i in joined[j] for j in mine)
        place = order.index(i)
        assert order[(place + 1) % n] in mine
        assert order[(place + k // 2) % n] in mine


def test_the_complete_graph_joins_all_others() -> None:
    assert neighbours([2, 0, 3, 1], 3, 0) == [1, 2, 3]


@pytest.mark.parametrize(("k", "index"), [(3, 0), (0, 0), (-2, 0), (2, 9)])
def test_what_is_no_neighbourhood_is_refused(k: int, index: int) -> None:
    with pytest.raises(ValueError):
        neighbours(list(range(9)), k, index)


def test_a_seed_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="seed"):
        ring_order(bytes(16), 4)


def test_words_that_would_favour_small_numbers_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """2**64 - 1 is above the largest multiple of 3: taken modulo 3 it would make 0 likelier."""
    stream = (2**64 - 1).to_bytes(8, "little") + (5).to_bytes(8, "little") + bytes(4096 - 16)
    monkeypatch.setattr(graph, "keystream", lambda key, start, nbytes: stream)
    # Word 5 (mod 3 = 2) is used for the first exchange, then 0.
    assert ring_order(bytes(32), 3) == [1, 0, 2]


# ------------------------------------------------------------------------------------------- corrupt of the registry


@pytest.mark.parametrize("corrupt_ones", [0, 1, 2, 4, 10, 20])
@pytest.mark.parametrize("others", [1, 2, 5])
def test_the_smallest_roster_is_safe_alive_and_hides_and_one_less_does_not(
    corrupt_ones: int, others: int
) -> None:
    def good(n: int) -> bool:
        alive = n - n // 5
        threshold = (n + corrupt_ones) // 2 + 1
        return threshold <= alive and alive - corrupt_ones - 1 >= others

    n = graph.smallest_roster(corrupt_ones, 200_000, others)
    assert good(n)
    assert not any(good(fewer) for fewer in range(2, n))
