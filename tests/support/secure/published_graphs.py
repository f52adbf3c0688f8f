"""What Google's `graph_parameter_finder` is published to find (`fcp/secagg/server/graph_parameter_finder_test.cc` of
google-parfait/federated-compute), from 100 clients on: k and t of a ring, at 40 bits of security and 20 of correctness.

Left out are its cells of 10 clients: below 65 participants the graph is complete here, and the search is not asked.
"""

from __future__ import annotations

from typing import NamedTuple

SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
_TABLE = """
    .45 .45 curious  92/46 822/417 3494/1771 5508/2788 6240/3156
    .33 .33 curious  68/34 286/150 422/221 480/251 518/270
    .30 .30 lying    92/62 872/584 4822/3230 9388/6286 11136/7454
    .05 .33 curious  28/6 72/24 86/29 96/32 102/34
    .05 .33 lying    72/39 398/223 746/420 882/496 970/545
    .33 .05 curious  34/29 78/60 92/70 102/77 110/83
    .33 .05 lying    42/37 132/109 178/146 196/160 212/173
    .05 .05 curious  12/6 30/17 34/20 36/21 38/22
    .05 .05 lying    16/11 52/37 62/44 68/48 74/52
    .33 .00 curious  26/25 38/36 42/40 46/44 50/47
    .33 .00 lying    26/26 38/37 42/41 46/45 50/49
    .00 .33 curious  26/2 38/2 42/2 46/2 50/2
    .00 .33 lying    68/35 228/115 326/164 372/187 410/206
    .00 .00 curious  2/2 2/2 2/2 2/2 2/2
    .00 .00 lying    2/2 2/2 2/2 2/2 2/2
"""
SLOW_DEGREE = 3_000
"""Searches up to such a k take seconds to minutes: `tests/benchmarks/published_graph_cells.py` makes them."""


class Cell(NamedTuple):
    """One published search; fractions in hundredths."""

    n: int
    corrupt: int
    dropped: int
    lying: bool
    k: int
    t: int


def _cells() -> list[Cell]:
    found = []
    for line in _TABLE.split("\n"):
        if line.strip():
            gamma, delta, against, *choices = line.split()
            for n, choice in zip(SIZES, choices, strict=True):
                k, t = choice.split("/")
                found.append(Cell(n, int(gamma[1:]), int(delta[1:]), against == "lying", int(k), int(t)))
    return found


CELLS = [cell for cell in _cells() if cell.k < SLOW_DEGREE]
SLOW_CELLS = [cell for cell in _cells() if cell.k >= SLOW_DEGREE]
INFEASIBLE = [(1_000, 50, 50, False), (1_000, 50, 50, True)]
"""n, corrupt, dropped, lying: no ring at all. Published, but not so here: (1000, 33, 33, lying). A ring of 992 neighbours
fulfils the conditions with t = 662, as of 992 neighbours no more than 330 can drop out and 330 be corrupt."""
