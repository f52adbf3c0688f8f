"""CPU time of a participant's secure-aggregation steps beside those of Flower's SecAgg+, interleaved in one run.

python tests/benchmarks/bench_secure_aggregation.py [--parameters N] [--flower PYTHON | --install-flower DIR]

Flower is no dependency of ours: name an interpreter that has it, or let one be made with `--install-flower` (downloads
flwr into DIR). Without either only our side is measured. Process CPU time, minimum of the repeats, A and B in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
import tracemalloc
import venv
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ssd.secagg.numbers.masked_fold import MaskedFold
from ssd.secagg.numbers.masked_plan import MaskedPlan, MaskedSettings
from ssd.secagg.numbers.masking import MaskKey
from ssd.secagg.protocol import shamir
from ssd.updates.codec import Encoding
from ssd.updates.declaration import Declaration, GroupDeclaration, Reducer
from ssd.updates.fold import encode_update
from ssd.updates.fold_plan import FoldPlan
from ssd.updates.spec import Kind, ParameterSpec

FLOWER_VERSION = "1.41.0"
NEIGHBOURS = 50
HOLDERS, THRESHOLD = 100, 67


def plan_of(parameters: int, ring_bits: int) -> MaskedPlan:
    """One weighted group of so many parameters, for 100 clients."""
    spec = ParameterSpec.build([("w", (parameters,), "model", Kind.PARAMETER)])
    group = GroupDeclaration(name="model", reducer=Reducer.WEIGHTED_MEAN, max_abs=8.0, norm_bound=1e9)
    declaration = Declaration(method="bench", version=1, spec=spec, groups=(group,))
    fold = FoldPlan.create(declaration, Encoding.FLOAT32, 100, 1024)
    return MaskedPlan.create(fold, MaskedSettings(ring_bits=ring_bits, max_cohort=100))


class Ours:
    """Quantise, mask and serialise one client's update, as a worker with one client does."""

    def __init__(self, parameters: int, ring_bits: int) -> None:
        self.plan = plan_of(parameters, ring_bits)
        delta = np.random.default_rng(0).standard_normal(parameters, dtype=np.float32) * np.float32(0.01)
        self.body = bytes(encode_update(self.plan.fold, delta, {}))
        self.keys = [MaskKey(os.urandom(32), 1 if i % 2 else -1) for i in range(NEIGHBOURS + 1)]

    def step(self, threads: int = 1) -> int:
        """Bytes of the upload."""
        fold = MaskedFold(self.plan)
        fold.add_client(self.body, 600, bytes(32))
        fold.add_masks(self.keys, threads)
        return sum(len(chunk) for chunk in fold.pack_chunks())

    def extra_peak(self) -> int:
        """Peak bytes beyond the fold's own vector (a plain fold's takes twice that) and the update."""
        fold = MaskedFold(self.plan)
        tracemalloc.start()
        fold.add_client(self.body, 600, bytes(32))
        fold.add_masks(self.keys)
        for _ in fold.pack_chunks():
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak


class Flower:
    """The other side, in its own interpreter."""

    def __init__(self, python: str) -> None:
        steps = Path(__file__).with_name("flower_secagg_steps.py")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [python, str(steps)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, **request: object) -> dict[str, float]:
        """The answer to one request."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the interpreter that should have Flower failed; see above")
        return json.loads(line)

    def close(self) -> None:
        """End the interpreter."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def cpu(act: Callable[[], object]) -> float:
    start = time.process_time()
    act()
    return time.process_time() - start


def interleaved(
    ours: Callable[[], float], theirs: Callable[[], float] | None, repeats: int
) -> tuple[float, float | None]:
    """The minimum of either, measured in turn."""
    a, b = [], []
    for _ in range(repeats):
        a.append(ours())
        if theirs is not None:
            b.append(theirs())
    return min(a), min(b) if b else None


def show(name: str, ours: float, theirs: float | None, unit: str) -> None:
    if theirs is None:
        print(f"| {name} | {ours:.4g} {unit} | | |")
    else:
        print(f"| {name} | {ours:.4g} {unit} | {theirs:.4g} {unit} | {theirs / ours:.3g} |", flush=True)


def masking(parameters: int, flower: Flower | None, repeats: int) -> None:
    theirs = None
    if flower is not None:
        theirs = lambda: flower.ask(step="mask", size=parameters, neighbours=NEIGHBOURS)["value"]  # noqa: E731
    for ring_bits in (24, 32):
        ours = Ours(parameters, ring_bits)
        a, b = interleaved(lambda ours=ours: cpu(ours.step), theirs, repeats)
        show(f"quantise + mask + serialise, {parameters:,}, {ring_bits}-bit ring", a, b, "s")
    answer = {} if flower is None else flower.ask(step="mask", size=parameters, neighbours=1, memory=True)
    ours = Ours(parameters, 24)
    extra = ours.extra_peak() / 2**20
    show("peak memory beyond the update and the fold's own vector", extra, None, "MiB")
    vector = 4 * parameters / 2**20
    show("peak memory beyond the update", extra + vector, answer.get("value", 0) / 2**20 or None, "MiB")
    nbytes = answer.get("nbytes")
    show("upload per parameter", ours.step() / parameters, nbytes / parameters if nbytes else None, "bytes")


def sharing(flower: Flower | None, repeats: int) -> None:
    xs = list(range(1, HOLDERS + 1))
    secret = shamir.random_secret(os.urandom)
    shares = shamir.split(secret, THRESHOLD, xs, os.urandom)
    chosen = {x: shares[x] for x in xs[:THRESHOLD]}

    def share_both() -> float:
        return cpu(lambda: [shamir.split(secret, THRESHOLD, xs, os.urandom) for _ in range(2)]) * 1e3

    def rebuild_both() -> float:
        shamir.coefficients_at_zero.cache_clear()
        return cpu(lambda: [shamir.combine(chosen, threshold=THRESHOLD) for _ in range(2)]) * 1e3

    def flower_does(step: str) -> Callable[[], float] | None:
        if flower is None:
            return None
        return lambda: sum(
            flower.ask(step=step, secret=kind, threshold=THRESHOLD, holders=HOLDERS)["value"] * 1e3
            for kind in ("seed", "key")
        )

    show(
        f"share both secrets, n = {HOLDERS}, t = {THRESHOLD}",
        *interleaved(share_both, flower_does("share"), repeats),
        "ms",
    )
    show("rebuild one seed and one key", *interleaved(rebuild_both, flower_does("rebuild"), repeats), "ms")


def installed(folder: Path) -> str:
    """A fresh virtual environment with Flower."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"flwr=={FLOWER_VERSION}"], check=True)
    return str(python)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--flower", help="an interpreter that has flwr")
    parser.add_argument("--install-flower", type=Path, help="a folder for a fresh environment with flwr")
    options = parser.parse_args()
    python = installed(options.install_flower) if options.install_flower else options.flower
    flower = Flower(python) if python else None
    if flower is None:
        print("Flower is skipped: name an interpreter with --flower, or a folder with --install-flower.")
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, cryptography {version('cryptography')}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print("| step | ours | Flower | ratio |\n| --- | ---: | ---: | ---: |")
    masking(options.parameters, flower, options.repeats)
    sharing(flower, options.repeats)
    if flower is not None:
        flower.close()


if __name__ == "__main__":
    main()
