"""The published searches that are too slow for the unit suite: rings of thousands of neighbours.

    PYTHONPATH=.:proto:tests/support python tests/benchmarks/published_graph_cells.py

Exit status 1 if one is not found as published. All others are unit tests (`test_ssd_secagg_graph.py`).
"""

from __future__ import annotations

import sys
import time

from secure.published_graphs import SLOW_CELLS
from ssd.secagg.protocol.graph import search_ring


def main() -> int:
    """Search them one after the other."""
    wrong = 0
    for n, corrupt, dropped, lying, k, t in SLOW_CELLS:
        started = time.process_time()
        found = search_ring(n, n * corrupt // 100, n * dropped // 100, lying=lying, chosen_dropouts=False)
        seconds = time.process_time() - started
        wrong += found != (k, t)
        print(f"n={n} published k={k} t={t}, found {found}, {seconds:.1f} s of processor time", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
