"""What both daemons import must not drag torch in; asked of a fresh interpreter, not of this one."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = [
    "ssd",
    "ssd.aggregation.angular",
    "ssd.aggregation.common_descent",
    "ssd.aggregation.min_norm",
    "ssd.checking",
    "ssd.codec",
    "ssd.declaration",
    "ssd.digest",
    "ssd.fixed_point",
    "ssd.fold_plan",
    "ssd.folding",
    "ssd.methods",
    "ssd.methods.method",
    "ssd.methods.registry",
    "ssd.methods.synthetic",
    "ssd.methods.synthetic_hook",
    "ssd.methods.synthetic_numbers",
    "ssd.npy",
    "ssd.packing",
    "ssd.quality_sums",
    "ssd.random_stream",
    "ssd.scaling",
    "ssd.schedule",
    "ssd.secagg.aggregator",
    "ssd.secagg.audit",
    "ssd.secagg.dp",
    "ssd.secagg.graph",
    "ssd.secagg.numbers",
    "ssd.secagg.participant",
    "ssd.secagg.shamir",
    "ssd.server_hook",
    "ssd.spec",
    "ssd.version",
]
HEAVY = ["torch", "torchvision", "sklearn", "matplotlib", "grpc"]


def loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_core_of_the_library_imports_nothing_heavy() -> None:
    loaded = loaded_after("import " + ", ".join(MODULES))
    assert loaded.isdisjoint(HEAVY)
    assert set(MODULES) <= loaded


def test_training_synthetically_imports_nothing_heavy() -> None:
    code = """
import numpy
from ssd.methods.method import ClientTask
from ssd.methods.registry import load
method = load("synthetic", {})
task = ClientTask(run_seed=1, round=1, rounds=1, client_id="c", base=method.initial(1, None))
method.train(task, None, lambda *seen: None)
"""
    assert loaded_after(code).isdisjoint(HEAVY)


@pytest.mark.parametrize("package", ["ssd", "ssd.methods"])
def test_the_packages_themselves_import_nothing(package: str) -> None:
    # Site hooks of this environment may load modules of their own; compare with an empty program.
    parents = {".".join(package.split(".")[: i + 1]) for i in range(package.count(".") + 1)}
    assert loaded_after(f"import {package}") - loaded_after("") <= parents
