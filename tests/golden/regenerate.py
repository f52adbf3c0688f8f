"""Writes the golden vectors beside this file: python tests/golden/regenerate.py (with the root on the path).

The vectors pin bits that other hosts, other releases and stored files rely on. If `test_ssd_golden` fails,
the code is wrong, unless the change is meant to break every existing run; then, and only then, run this.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ssd.digest import CHUNK_BYTES, digest_bytes, json_digest
from ssd.method.protocol import ClientTask
from ssd.method.registry import load
from ssd.random_stream import RandomStream
from ssd.scaling import assign
from ssd.updates.codec import Encoding, VectorCodec
from ssd.updates.fixed_point import Int64Ring, scale_bits
from ssd.updates.fold import Fold, FoldPlan, encode_update
from ssd.updates.packing import pack_int64
from ssd.updates.spec import Kind, ParameterSpec, model_digest
from ssd.updates.version import next_version

FOLDER = Path(__file__).parent

# Chosen by hand: both zeros, both ends of float32, denormals, halves that round, very different magnitudes.
VALUES = [
    0.0, -0.0, 1.0, -1.0, 0.1, -3.0e-5, 65504.0, 2049.0, 1.0 / 3.0, 2.0**-24,
    1.0e-45, -1.1754942e-38, 1.0e-38, 3.4028235e38, -3.4028235e38, 1.0e30, 1.0e-30, 7.0, -0.5, 123456.79,
]  # fmt: skip


def _spec() -> ParameterSpec:
    return ParameterSpec.build(
        [
            ("layer.weight", (4, 2), "encoder", Kind.PARAMETER),
            ("layer.bias", (5,), "encoder", Kind.PARAMETER),
            ("norm.mean", (3,), "buffers", Kind.BUFFER),
            ("norm.var", (4,), "buffers", Kind.VARIANCE),
        ]
    )


def _codec() -> dict[str, Any]:
    spec, vector = _spec(), np.array(VALUES, np.float32)
    bodies = {}
    for encoding in Encoding:
        codec = VectorCodec(spec, {"encoder": encoding, "buffers": Encoding.FLOAT32})
        body = codec.encode(vector)
        decoded = codec.decode(body)
        with np.errstate(over="ignore"):
            version = next_version(spec, vector, decoded)
        bodies[encoding.value] = {
            "body": body.hex(),
            "decoded": decoded.astype("<f4").tobytes().hex(),
            "next_model_digest": model_digest(spec, version),
        }
    return {
        "spec_digest": spec.digest,
        "vector": vector.astype("<f4").tobytes().hex(),
        "model_digest": model_digest(spec, vector),
        "encodings": bodies,
    }


def _digest() -> dict[str, Any]:
    pattern = (np.arange(2 * CHUNK_BYTES + 5) % 251).astype(np.uint8)
    return {
        "empty": digest_bytes(b""),
        "abc": digest_bytes(b"abc"),
        "one_chunk": digest_bytes(pattern[:CHUNK_BYTES]),
        "two_chunks_and_five_bytes": digest_bytes(pattern),
        "json": json_digest({"b": [1, 2.5, None, True], "a": "ü"}),
    }


def _random_stream() -> dict[str, Any]:
    stream = RandomStream("golden", 1)
    return {
        "words": [RandomStream("golden", label).seed64() for label in (0, 1, "1", -1)],
        "permutation": stream.permutation(20),
        "sample": stream.sample(["a", "b", "c", "d", "e"], 3),
        "below": [stream.below(n) for n in (1, 2, 10, 1000, 2**63 + 1, 2**64)],
        "uniform": [stream.uniform() for _ in range(3)],
    }


def _fixed_point() -> dict[str, Any]:
    values = np.array([0.0, 1.0, -1.0, 0.1, -3.0e-5, 1 / 3, 2.0**-40, 7.999, -8.0], np.float32)
    bits = scale_bits(40 * 1000, 8.0)
    ring = Int64Ring()
    sums = ring.quantise(values, 999, bits)
    wide = np.concatenate((np.arange(4096) * 1_000_003, np.full(4096, -5), np.array([2**62, -(2**62)])))
    return {
        "scale_bits": bits,
        "quantised": sums.tolist(),
        "opened": ring.open(sums, bits, 999).astype("<f4").tobytes().hex(),
        "packed": ring.pack(sums).hex(),
        "packed_wide_digest": digest_bytes(pack_int64(wide)),
    }


def _scaling() -> dict[str, Any]:
    def indices(index: int, clients: int, seed: int = 17) -> list[int]:
        vector = assign(
            index,
            dimension=512,
            expected_clients=clients,
            block=None,
            allocation="auto",
            alpha=10.0,
            seed=seed,
        )
        return list(vector.indices)

    return {
        "k10": {str(index): indices(index, 10) for index in (0, 9, 10, 57)},
        "k50": {str(index): indices(index, 50) for index in (0, 49, 50, 51, 102, 1999)},
        "another_seed": indices(0, 50, seed=18),
    }


def _synthetic() -> dict[str, Any]:
    method = load("synthetic", {"parameters": 100_000, "scaling": {"dimension": 64, "alpha": 10.0}})
    declaration = method.declare()
    plan = FoldPlan.create(declaration, Encoding.FLOAT16, 4, 64)
    base = method.initial(3, None)
    fold = Fold(plan)
    deltas = []
    for index in range(3):
        scaling = assign(
            index, dimension=64, expected_clients=4, block=None, allocation="auto", alpha=10.0, seed=3
        )
        task = ClientTask(
            run_seed=3, round=1, rounds=1, client_id=f"client-{index:03}", base=base, scaling=scaling
        )
        result = method.train(task, None, lambda step, steps, losses: None)
        deltas.append(digest_bytes(result.delta))
        fold.add_update(encode_update(plan, result.delta, result.statistics), result.weight)
    opened = fold.open()
    return {
        "version_0": model_digest(declaration.spec, base),
        "deltas": deltas,
        "fold": digest_bytes(fold.pack()),
        "version_1": model_digest(declaration.spec, next_version(declaration.spec, base, opened.delta)),
        "weight": opened.weight,
    }


def cases() -> dict[str, Any]:
    """File name to content."""
    return {
        "codec.json": _codec(),
        "digest.json": _digest(),
        "random_stream.json": _random_stream(),
        "fixed_point.json": _fixed_point(),
        "scaling.json": _scaling(),
        "synthetic.json": _synthetic(),
    }


if __name__ == "__main__":
    for name, content in cases().items():
        (FOLDER / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
