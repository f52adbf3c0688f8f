"""What the next version is, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ssd.updates.codec import Encoding, MalformedUpdate, VectorCodec
from ssd.updates.spec import Kind, ParameterSpec, SpecError, model_digest
from ssd.updates.version import next_version, next_version_from_body

SPEC = ParameterSpec.build(
    [
        ("w", (500,), "encoder", Kind.PARAMETER),
        ("mean", (6,), "buffers", Kind.BUFFER),
        ("var", (6,), "buffers", Kind.VARIANCE),
    ]
)


def vector(seed: int, scale: float = 1.0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(SPEC.size) * scale).astype(np.float32)


@given(st.integers(0, 10**6), st.floats(1e-8, 10), st.sampled_from(list(Encoding)))
@settings(max_examples=60, deadline=None)
def test_piecewise_and_whole_give_the_same_bits(seed: int, scale: float, encoding: Encoding) -> None:
    codec = VectorCodec(SPEC, {"encoder": encoding, "buffers": Encoding.FLOAT32})
    base, body = vector(seed), codec.encode(vector(seed + 1, scale))
    whole = next_version(SPEC, base, codec.decode(body))
    assert next_version_from_body(codec, base, body).tobytes() == whole.tobytes()
    in_place = base.copy()
    assert next_version_from_body(codec, in_place, body, out=in_place) is in_place
    assert model_digest(SPEC, in_place) == model_digest(SPEC, whole)
    in_place = base.copy()
    next_version(SPEC, in_place, codec.decode(body), out=in_place)
    assert in_place.tobytes() == whole.tobytes()


def test_the_sum_is_one_float32_addition_per_value() -> None:
    base, delta = vector(1), vector(2, 1e-3)
    result = next_version(SPEC, base, delta)
    expected = [np.float32(a) + np.float32(b) for a, b in zip(base, delta, strict=True)]
    assert result[:506].tolist() == [float(value) for value in expected[:506]]
    assert result.dtype == np.float32


def test_variances_never_go_below_zero_and_means_may() -> None:
    base, delta = np.zeros(SPEC.size, np.float32), np.full(SPEC.size, -1, np.float32)
    delta[511] = -0.0
    base[511] = -0.0
    result = next_version(SPEC, base, delta)
    assert (result[:506] == -1).all()
    assert result[506:].tobytes() == bytes(24), "+0, not -0, on every processor"


def test_denormals_are_kept() -> None:
    tiny = np.full(SPEC.size, 1e-45, np.float32)
    assert (next_version(SPEC, tiny, tiny) == np.float32(3e-45)).all()


def test_wrong_vectors_are_refused() -> None:
    base = vector(1)
    for wrong in (base[:-1], base.astype(np.float64)):
        for arguments in ((wrong, base, None), (base, wrong, None), (base, base, wrong)):
            with pytest.raises(SpecError):
                next_version(SPEC, *arguments)  # type: ignore[arg-type]  # the point of the test
    codec = VectorCodec(SPEC, {"encoder": Encoding.FLOAT16, "buffers": Encoding.FLOAT32})
    with pytest.raises(MalformedUpdate):
        next_version_from_body(codec, base, b"")
    with pytest.raises(SpecError):
        next_version_from_body(codec, base[:-1], codec.encode(base))
