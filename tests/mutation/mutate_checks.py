"""Takes the checks of secure aggregation, and of what other machines send, out one by one; every time a test has to fail.

    PYTHONPATH=.:proto:tests/support python tests/mutation/mutate_checks.py [--only TEXT] [--part statements|branches] [--jobs N]

A check is a statement that calls one of CHECKS, or (in BRANCHES) an `if` that does nothing but raise or refuse. In a copy of the tree the statement is replaced by `pass`, the
condition by `False`, and the tests that belong to the source run until the first failure. A run that passes is a survivor: a check nothing depends on. Exit status 1 if there is one.
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
    "ssd/secagg/protocol/checks.py",
    "ssd/secagg/client/participant.py",
    "ssd/secagg/server/aggregator.py",
    "ssd/secagg/server/advert_checks.py",
    "ssd/secagg/server/members.py",
    "ssd/secagg/audit/audit.py",
    "ssd/secagg/audit/receipts.py",
    "ssd/secagg/admission/declaration_checks.py",
    "worker/secure_aggregation/task_checks.py",
    "ssd/secagg/admission/policy_checks.py",
    "proto/ssd_wire/from_proto.py",
)
CHECKS = frozenset(
    {
        "refuse_unless", "reject_unless", "_abort_unless", "hold", "check_sender", "_check_survival", "_expect",
        "_check_identity", "check_terms", "check_advert", "check_run_terms", "check_roster", "check_delivery", "check_survivors",
        "check_proof", "_check_signatures", "_check_roster", "_check_sets", "_check_enough", "remember_round", "remember_opened",
        "_forget_own", "close", "abort", "_require", "_check_secure", "_check_private",
        "remember_upload", "remember_signed", "check_declaration", "check_schedules", "check_policy", "check_method", "check_privacy", "check_honest", "check_change", "_check_earlier",
    }
)  # fmt: skip
"""Functions whose call, alone in a statement, is a check; or what must be remembered or forgotten."""
LYING = tuple(
    f"unit/ssd/secagg/client/test_lying_{what}.py" for what in ("coordinator", "rosters", "survivor_sets")
)
SUITE = (
    *LYING,
    "unit/ssd/secagg/server/test_aggregator.py",
    "unit/ssd/secagg/server/test_rebuilding.py",
    "unit/ssd/secagg/server/test_restart.py",
    "unit/ssd/secagg/audit/test_transcript.py",
    "unit/ssd/secagg/audit/test_receipts.py",
    "unit/ssd/secagg/client/test_secrets.py",
    "unit/ssd/secagg/client/test_receipts.py",
    "unit/ssd/secagg/client/test_second_sums.py",
    "unit/ssd/secagg/client/test_set_changes.py",
    "unit/ssd/secagg/test_rounds.py",
    "unit/worker/secure_aggregation/test_task_checks.py",
    "unit/worker/secure_aggregation/test_policy.py",
)
"""Of SOURCES, under tests."""
FIRST = {
    "ssd/secagg/audit/receipts.py": "unit/ssd/secagg/audit/test_receipts.py",
    "ssd/secagg/audit/audit.py": "unit/ssd/secagg/audit/test_transcript.py",
    "ssd/secagg/server/advert_checks.py": "unit/ssd/secagg/server/test_aggregator.py",
    "ssd/secagg/server/members.py": "unit/ssd/secagg/server/test_aggregator.py",
    "ssd/secagg/server/aggregator.py": "unit/ssd/secagg/server/test_aggregator.py",
    "ssd/secagg/client/participant.py": "unit/ssd/secagg/client/test_secrets.py",
    "ssd/secagg/admission/declaration_checks.py": "unit/worker/secure_aggregation/test_task_checks.py",
    "worker/secure_aggregation/task_checks.py": "unit/worker/secure_aggregation/test_task_checks.py",
    "ssd/secagg/admission/policy_checks.py": "unit/worker/secure_aggregation/test_policy.py",
}
"""Which of them most likely fails for a source: it goes first."""
MASKED_NUMBERS = tuple(
    f"unit/ssd/secagg/numbers/test_{name}.py"
    for name in ("masked_fold", "masked_noise", "masked_plan", "masked_sum", "mod_ring", "statistics")
)
BRANCHES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "ssd/secagg/numbers/masked_plan.py": ("", "", MASKED_NUMBERS),
    "ssd/secagg/numbers/masked_fold.py": ("", "", MASKED_NUMBERS),
    "ssd/secagg/numbers/masked_sum.py": ("", "", MASKED_NUMBERS),
    "ssd/secagg/protocol/shamir.py": ("", "", ("unit/ssd/secagg/protocol/test_shamir.py",)),
    "ssd/secagg/protocol/keys.py": (
        "",
        "",
        ("unit/ssd/secagg/client/test_secrets.py", *LYING),
    ),
    "ssd/secagg/protocol/encoding.py": ("", "", ("unit/ssd/secagg/protocol/test_messages.py",)),
    "ssd/secagg/audit/transcript.py": ("", "", ("unit/ssd/secagg/audit/test_transcript.py",)),
    "ssd/trust/registry_pin.py": (
        "",
        "",
        ("unit/ssd/trust/test_participants.py", "unit/coordinator/cli/test_registry.py"),
    ),
    "ssd/trust/policy/policy_pin.py": ("", "", ("unit/ssd/trust/test_federation_policy.py",)),
    "ssd/trust/policy/federation_policy.py": ("", "", ("unit/ssd/trust/test_federation_policy.py",)),
    "coordinator/secure_aggregation/offers.py": (
        "check_masked_upload",
        "",
        ("simulation/secure/test_secure_hostile.py",),
    ),
    "coordinator/uploads/envelope_checks.py": (
        "",
        "masked_nbytes",
        ("simulation/secure/test_secure_hostile.py", "simulation/test_driver.py"),
    ),
    "worker/core/secagg_client.py": (
        "",
        "",
        tuple(
            f"unit/worker/core/test_secagg_{what}.py" for what in ("client", "runs", "refusals", "history")
        ),
    ),
    "proto/ssd_wire/from_proto.py": (
        "",
        "",
        ("unit/wire/test_from_proto_down.py", "unit/wire/test_from_proto_up.py"),
    ),
    "ssd/method/registry.py": ("built_in_name", "", ("unit/ssd/method/test_registry.py",)),
    "coordinator/evaluation/answers.py": ("checked", "", ("unit/coordinator/evaluation/test_answers.py",)),
    "coordinator/uploads/client_weights.py": (
        "check",
        "",
        ("unit/coordinator/uploads/test_client_weights.py",),
    ),
    "coordinator/rpc/federation/hello.py": ("read take", "", ("unit/coordinator/rpc/test_hello.py",)),
    "coordinator/rpc/federation/share.py": ("", "", ("unit/coordinator/rpc/test_share.py",)),
    "ssd/updates/declaration.py": (
        "_check_method_name from_bytes",
        "",
        ("unit/worker/training/test_received_method.py", "unit/ssd/updates/test_declaration.py"),
    ),
}
"""Source -> the functions that are looked at and a word its conditions have (empty: all), and the tests that belong to
it. Of the checks of uploads only those that have to do with masks."""
REFUSING = frozenset({"_refuse", "_ignore", "_without_keys"})
"""Functions whose result is returned where a message is refused or of no consequence."""
RUN_SECONDS = 900


@dataclass(frozen=True)
class Mutant:
    """One statement to take out."""

    source: str
    first: int
    last: int
    column: int
    text: str
    last_column: int | None = None
    """Of a condition; None: a whole statement."""

    def __str__(self) -> str:
        return f"{self.source}:{self.first}: {self.text}"

    def apply(self, content: str) -> str:
        """The source without the check; line numbers stay."""
        lines = content.split("\n")
        if self.last_column is not None:
            tail = lines[self.last - 1][self.last_column :]
            lines[self.first - 1] = lines[self.first - 1][: self.column] + "False" + tail
            lines[self.first : self.last] = [""] * (self.last - self.first)
            return "\n".join(lines)
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


def branches() -> Iterator[Mutant]:
    """The conditions of BRANCHES, in the order of the sources."""
    for source, (function, needle, _) in BRANCHES.items():
        tree = ast.parse((ROOT / source).read_text())
        roots = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in function.split()
        ]
        for root in roots if function else [tree]:
            for node in ast.walk(root):
                if not isinstance(node, ast.If) or len(node.body) > 2 or not _refuses(node.body[-1]):
                    continue
                text = " ".join(ast.unparse(node.test).split())
                if needle not in text:
                    continue
                at = node.test
                assert at.end_lineno is not None
                yield Mutant(
                    source, at.lineno, at.end_lineno, at.col_offset, f"if {text[:150]}", at.end_col_offset
                )


def _refuses(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Raise):
        return True
    value = statement.value if isinstance(statement, ast.Return) else None
    return isinstance(value, ast.Call) and getattr(value.func, "id", "") in REFUSING


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
    suite = BRANCHES[source][2] if source in BRANCHES else SUITE
    suite = tuple(sorted(suite, key=lambda name: name != FIRST.get(source)))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    command += ["--rootdir", str(tree), "--import-mode=importlib"]
    command += [str(tree / "tests" / name) for name in suite]
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
    for part in (
        "ssd",
        "coordinator",
        "worker",
        "proto",
        "tests/support",
        "tests/unit",
        "tests/simulation",
        "tests/golden",
    ):
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    return tree


def main() -> int:
    """Run them all and report the survivors."""
    parser = argparse.ArgumentParser(description="take the checks of secure aggregation out one by one")
    parser.add_argument("--only", default="", help="only statements that contain this text")
    parser.add_argument("--part", choices=("all", "statements", "branches"), default="all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    found = {"statements": tuple(mutants()), "branches": tuple(branches())}
    parts = tuple(found) if options.part == "all" else (options.part,)
    chosen = [mutant for part in parts for mutant in found[part] if options.only in str(mutant)]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for index in range(options.jobs):
            trees.put(copy_tree(f"{folder}/{index}"))
        tree = trees.get()
        for source in {mutant.source: None for mutant in chosen}:
            if (source in BRANCHES or source == SOURCES[0]) and not suite_passes(tree, source):
                print(f"the tests of {source} fail without any change")
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
