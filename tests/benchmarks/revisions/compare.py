"""Runs one benchmark on two revisions in turn, and prints what the second takes as a share of the first.

    python tests/benchmarks/revisions/compare.py REVISION [--repeat 5] [--work training startup events rounds hosting ...]

`REVISION` is checked out into a temporary git worktree; the other side is this working tree. Both run the benchmark
scripts of *this* tree, each against its own product code (`SSD_BENCH_TREE`), one after the other and in alternating
order, so that what else the machine does meets both sides alike. Of every figure the medians and their ratio are
printed; processor seconds are the robust ones where cores are shared. Text figures, such as digests, are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
WORKS = {
    "training": ["bench_training.py", "--json", "--steps", "8"],
    "startup": ["bench_startup.py", "--json"],
    "events": ["bench_events.py", "--json"],
    "rounds": ["../bench_rounds.py", "--json", "--rounds", "20", "--parameters", "1100000"],
    "rounds-large": ["../bench_rounds.py", "--json", "--rounds", "4", "--parameters", "11200000"],
    "hosting": [
        "../bench_rounds.py",
        "--json",
        "--rounds",
        "6",
        "--parameters",
        "1100000",
        "--workers",
        "1",
        "--hosted",
        "100",
    ],
}

Figures = dict[str, dict[str, float | str]]


def run(work: str, tree: Path) -> Figures:
    """What one benchmark says of one tree: figures by name."""
    script, *arguments = WORKS[work]
    environment = {**os.environ, "SSD_BENCH_TREE": str(tree), "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        env=environment, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line.pop("name"): line for line in lines}


def table(work: str, before: list[Figures], after: list[Figures]) -> None:
    """Print the medians of both sides and their ratio."""
    sides: dict[tuple[str, str], tuple[list[float | str], list[float | str]]] = defaultdict(lambda: ([], []))
    for index, runs in enumerate((before, after)):
        for figures in runs:
            for name, values in figures.items():
                for key, value in values.items():
                    sides[name, key][index].append(value)
    print(f"\n{work}: {len(before)} runs a side, in turn; medians")
    print(f"{'':64} {'before':>10} {'after':>10} {'ratio':>7}")
    for (name, key), (old, new) in sides.items():
        label = f"{name}: {key.replace('_', ' ')}"
        if old and new and isinstance(old[0], str):
            print(f"{label:64} {'the same' if set(old) == set(new) else f'DIFFERENT: {set(old)} {set(new)}'}")
            continue
        sizes = [statistics.median(map(float, side)) if side else float("nan") for side in (old, new)]
        print(
            f"{label:64} {sizes[0]:10.4g} {sizes[1]:10.4g} {sizes[1] / sizes[0] if sizes[0] else float('nan'):7.2f}"
        )


def main() -> None:
    """Check the revision out, measure in turn, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revision", help="what to compare this working tree with")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument(
        "--work", nargs="+", choices=WORKS, default=["training", "startup", "events", "rounds"]
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        other = Path(scratch) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(other), options.revision], check=True)
        try:
            for work in options.work:
                before: list[Figures] = []
                after: list[Figures] = []
                for turn in range(options.repeat):
                    pairs = [(before, other), (after, ROOT)]
                    for kept, tree in pairs if turn % 2 == 0 else reversed(pairs):
                        kept.append(run(work, tree))
                table(work, before, after)
        finally:
            subprocess.run([*git, "remove", "--force", str(other)], check=True)


if __name__ == "__main__":
    main()
