"""Images per second of SSD's local training, through the method itself, and the processor time an image takes.

    python tests/benchmarks/revisions/bench_training.py [--model resnet8] [--threads 1 2] [--steps 12] [--json]

One client, random 32 x 32 images in memory, batches of 128, the official views: one `train` call of `steps` steps
after one of two steps. The result is a function of the task, so the digest of the update is printed, too: two
revisions whose digests differ do not train alike. `--plain` adds the same networks, losses and views in a plain loop.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

ROOT = Path(os.environ.get("SSD_BENCH_TREE") or Path(__file__).resolve().parents[3])
sys.path[:0] = [str(ROOT), str(ROOT / "proto")]

import torch

from ssd.data.images.source import TensorImages
from ssd.method import registry
from ssd.method.protocol import ClientTask
from ssd.scaling import ScalingVector

BATCH = 128


def measure(model: str, threads: int, steps: int) -> dict[str, float | str]:
    """Seconds and processor seconds of `steps` training steps, and the update's digest."""
    import hashlib

    config = {
        "model": {"name": model},
        "image": {"size": 32, "channels": 3},
        "local_epochs": 1,
        "batch_size": BATCH,
    }
    method = registry.built_in("ssd", config)
    base = method.initial(1, None)
    dimension = method.declare().scaling.dimension  # type: ignore[union-attr]
    scaling = ScalingVector(dimension=dimension, indices=tuple(range(dimension // 10)), alpha=10.0)
    generator = torch.Generator().manual_seed(0)

    def train(count: int) -> tuple[float, float, str]:
        pixels = torch.randint(0, 256, (count * BATCH, 3, 32, 32), dtype=torch.uint8, generator=generator)
        task = ClientTask(
            run_seed=3, round=1, rounds=10, client_id="client", base=base, values={"lr": 0.05}, scaling=scaling,
            artefacts=method.artefacts(1), threads=threads,
        )  # fmt: skip
        started, cpu = time.perf_counter(), time.process_time()
        result = method.train(task, TensorImages(pixels), lambda *_: None)
        taken = time.perf_counter() - started, time.process_time() - cpu
        return *taken, hashlib.sha256(result.delta.tobytes()).hexdigest()[:16]

    train(2)
    seconds, cpu, digest = train(steps)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "images_per_second": steps * BATCH / seconds,
        "digest": digest,
    }


def main() -> None:
    """Print one line for each thread count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--json", action="store_true", help="one JSON object a line, for compare.py")
    options = parser.parse_args()
    for threads in options.threads:
        found = measure(options.model, threads, options.steps)
        name = f"SSD step, {options.model}, threads {threads}"
        if options.json:
            print(json.dumps({"name": name, **found}), flush=True)
        else:
            print(
                f"{name}: {found['images_per_second']:.0f} images/s, {found['cpu_seconds']:.2f} CPU-s, update {found['digest']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
