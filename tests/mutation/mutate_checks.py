"""Takes the checks of secure aggregation out one by one; every time a test has to fail.

    PYTHONPATH=.:proto:tests/support python tests/mutation/mutate_checks.py [--only TEXT] [--jobs N]

A check is a statement that calls one of CHECKS; in a copy of the tree the statement is replaced by `pass`, and the suite of secure aggregation runs until its first failure.
A run that passes is a survivor: a check nothing depends on. Exit status 1 if there is one.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    "ssd/secagg/checks.py",
    "ssd/secagg/participant.py",
    "ssd/secagg/aggregator.py",
    "ssd/secagg/audit.py",
)
CHECKS = frozenset(
    {
        "refuse_unless", "_reject_unless", "_abort_unless", "_hold", "_check_sender", "_check_survival", "_expect",
        "_check_identity", "check_terms", "check_told", "check_roster", "check_delivery", "check_survivors", "check_proof",
        "_check_signatures", "_check_roster", "_check_sets", "_check_enough", "remember_round", "remember_opened",
        "_forget_own", "close", "abort",
    }
)  # fmt: skip
"""Functions whose call, alone in a statement, is a check; or what must be remembered or forgotten."""
SUITE = (
    "test_secagg_lying_coordinator.py",
    "test_secagg_aggregator.py",
    "test_secagg_transcript.py",
    "test_secagg_secrets.py",
    "test_secagg_rounds.py",
)
"""Under tests/unit."""
FIRST = {
    "ssd/secagg/audit.py": "test_secagg_transcript.py",
    "ssd/secagg/aggregator.py": "test_secagg_aggregator.py",
    "ssd/secagg/participant.py": "test_secagg_secrets.py",
}
"""Which of them most likely fails for a source: it goes first."""
RUN_SECONDS = 900


@dataclass(frozen=True)
class Mutant:
    """One statement to take out."""

    source: str
    first: int
    last: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.source}:{self.first}: {self.text}"

    def apply(self, content: str) -> str:
        """The source without the statement; line numbers stay."""
        lines = content.split("\n")
        lines[self.first - 1 : self.last] = [" " * self.column + "pass"] + [""] * (self.last - self.first)
        return "\n".join(lines)


def mutants() -> Iterator[Mutant]:
    """All of them, in the order of the sources."""
    for source in SOURCES:
        for node in ast.walk(ast.parse((ROOT / source).read_text())):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                function = node.value.func
                name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
                if name in CHECKS:
                    text = " ".join(ast.unparse(node).split())
                    yield Mutant(
                        source, node.lineno, node.end_lineno or node.lineno, node.col_offset, text[:150]
                    )


def survives(mutant: Mutant, tree: Path) -> bool:
    """Whether the suite passes without the statement."""
    target = tree / mutant.source
    original = (ROOT / mutant.source).read_text()
    target.write_text(mutant.apply(original))
    try:
        return suite_passes(tree, mutant.source)
    finally:
        target.write_text(original)


def suite_passes(tree: Path, source: str = "") -> bool:
    """Whether the suite passes in that copy; `source` is what was changed in it."""
    suite = sorted(SUITE, key=lambda name: name != FIRST.get(source))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    command += ["--rootdir", str(tree), "--import-mode=importlib"]
    command += [str(tree / "tests/unit" / name) for name in suite]
    paths = os.pathsep.join(str(tree / folder) for folder in (".", "proto", "tests/support"))
    environment = os.environ | {
        "PYTHONPATH": paths,
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(tree / ".hypothesis"),
    }
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS
        )
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1, 2):
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    return done.returncode == 0


def copy_tree(folder: str) -> Path:
    """What the suite needs, in a folder of its own."""
    tree = Path(folder)
    for part in ("ssd/secagg", "ssd/trust"):
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (ROOT / "ssd").glob("*.py"):
        shutil.copy(path, tree / "ssd")
    for part in ("ssd/methods", "ssd/aggregation", "ssd/quality", "ssd/evaluation"):
        if (ROOT / part).exists():
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        ROOT / "tests/support", tree / "tests/support", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tree / "tests/unit").mkdir()
    for name in SUITE:
        shutil.copy(ROOT / "tests/unit" / name, tree / "tests/unit")
    golden = ROOT / "tests/unit/golden"
    shutil.copytree(golden, tree / "tests/unit/golden")
    return tree


def main() -> int:
    """Run them all and report the survivors."""
    parser = argparse.ArgumentParser(description="take the checks of secure aggregation out one by one")
    parser.add_argument("--only", default="", help="only statements that contain this text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    chosen = [mutant for mutant in mutants() if options.only in str(mutant)]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for index in range(options.jobs):
            trees.put(copy_tree(f"{folder}/{index}"))
        tree = trees.get()
        if not suite_passes(tree):
            print("the suite fails without any change")
            return 2
        trees.put(tree)

        def judge(mutant: Mutant) -> bool:
            tree = trees.get()
            try:
                alive = survives(mutant, tree)
            finally:
                trees.put(tree)
            print("SURVIVED" if alive else "killed  ", mutant, flush=True)
            return alive

        with ThreadPoolExecutor(options.jobs) as pool:
            survivors = [
                mutant for mutant, alive in zip(chosen, pool.map(judge, chosen), strict=True) if alive
            ]
    print(f"{len(chosen)} checks taken out, {len(survivors)} not missed, {time.monotonic() - started:.0f} s")
    for mutant in survivors:
        print("not missed:", mutant)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
