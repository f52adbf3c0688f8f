"""What both daemons import must not drag torch in; asked of a fresh interpreter, not of this one."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = [
    "ssd",
    "ssd.methods.server_steps.angular",
    "ssd.methods.server_steps.common_descent",
    "ssd.methods.server_steps.min_norm",
    "ssd.updates.check",
    "ssd.updates.codec",
    "ssd.updates.declaration",
    "ssd.digest",
    "ssd.updates.fixed_point",
    "ssd.updates.fold_plan",
    "ssd.updates.fold",
    "ssd.methods",
    "ssd.method.protocol",
    "ssd.method.registry",
    "ssd.methods.synthetic.method",
    "ssd.methods.synthetic.hook",
    "ssd.methods.synthetic.numbers",
    "ssd.method_host.npy",
    "ssd.updates.packing",
    "ssd.updates.quality_sums",
    "ssd.random_stream",
    "ssd.scaling",
    "ssd.method.schedule",
    "ssd.secagg.server.aggregator",
    "ssd.secagg.audit.audit",
    "ssd.privacy.noise",
    "ssd.secagg.protocol.graph",
    "ssd.secagg.numbers.masked_fold",
    "ssd.secagg.numbers.masked_plan",
    "ssd.secagg.numbers.masked_sum",
    "ssd.secagg.client.participant",
    "ssd.secagg.protocol.shamir",
    "ssd.method_host.hook",
    "ssd.updates.spec",
    "ssd.updates.version",
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
from ssd.method.protocol import ClientTask
from ssd.method.registry import load
method = load("synthetic", {})
task = ClientTask(run_seed=1, round=1, rounds=1, client_id="c", base=method.initial(1, None))
method.train(task, None, lambda *seen: None)
"""
    assert loaded_after(code).isdisjoint(HEAVY)


@pytest.mark.parametrize("package", ["ssd", "ssd.methods"])
def test_the_packages_themselves_import_nothing(package: str) -> None:
    # Compared with a program that imports what the lazy names are written with. Some environments' site hooks load
    # that already, others do not, and they may load modules of their own.
    parents = {".".join(package.split(".")[: i + 1]) for i in range(package.count(".") + 1)}
    assert (
        loaded_after(f"import {package}") - loaded_after("import importlib, typing") - {"__future__"}
        <= parents
    )
