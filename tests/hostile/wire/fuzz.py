"""A long run of the fuzzer: `python tests/hostile/wire/fuzz.py --inputs 1000000`.

Ends with 1 at the first input that hurts, which it leaves in the corpus, where CI replays it. Prints every so often
how far it is, at what rate, and the coordinator's largest memory.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import tempfile
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(_ROOT), str(_ROOT / "proto"), str(_ROOT / "tests" / "support")]

from wire.fuzz_firing import FuzzSite, recorded
from wire.fuzzing import Fuzzer, Input
from wire.hostile import reference

CORPUS = Path(__file__).with_name("corpus")


def peak_bytes(site: FuzzSite) -> int:
    """VmHWM of the coordinator."""
    assert site.federation.coordinator is not None
    status = Path(f"/proc/{site.federation.coordinator.process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def culprit(site: FuzzSite, batch: list[Input]) -> Input | None:
    """The first of a batch that hurts on its own."""
    for each in batch:
        try:
            site.fire([each])
        except AssertionError:
            return each
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end sooner, and well")
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as root, FuzzSite(Path(root)) as site:
        fuzzer = Fuzzer(options.seed, recorded(site))
        stream = fuzzer.inputs(options.inputs)
        began, done, said = time.monotonic(), 0, 0.0
        while time.monotonic() - began < options.seconds and (
            batch := list(itertools.islice(stream, options.batch))
        ):
            try:
                site.fire(batch)
            except AssertionError as error:
                alone = culprit(site, batch)
                for number, each in enumerate([alone] if alone else batch):
                    (CORPUS / f"{options.seed}-{done}-{number}.json").write_text(each.to_json() + "\n")
                print(f"after {done} inputs: {error}", flush=True)
                return 1
            done += len(batch)
            if time.monotonic() - said > 30:
                said = time.monotonic()
                rate = done / (said - began)
                print(f"{done} inputs, {rate:.0f} a second, peak {peak_bytes(site) / 1e6:.0f} MB", flush=True)
        assert site.finish() == reference(site.settings), "the round committed another model"
        print(
            f"{done} inputs in {time.monotonic() - began:.0f} s, peak {peak_bytes(site) / 1e6:.0f} MB; same digest"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
