"""Encodings: what the bytes mean, how much is lost, and that forged bytes are refused."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ssd.updates.codec import BLOCK, Encoding, MalformedUpdate, NotFinite, VectorCodec
from ssd.updates.spec import Kind, ParameterSpec, SpecError

SPEC = ParameterSpec.build(
    [
        ("a", (300,), "encoder", Kind.PARAMETER),
        ("b", (2, 256), "encoder", Kind.PARAMETER),
        ("c", (), "encoder", Kind.PARAMETER),
        ("mean", (7,), "buffers", Kind.BUFFER),
    ]
)
BLOCKS = 2 + 2 + 1


def codec(encoding: Encoding) -> VectorCodec:
    return VectorCodec(SPEC, {"encoder": encoding, "buffers": Encoding.FLOAT32})


def reference_decode(encoding: Encoding, body: bytes) -> list[float]:
    """The module docstring, one value at a time, without numpy."""
    sizes = [300, 512, 1]
    values: list[float] = []
    if encoding is Encoding.FLOAT32:
        values += struct.unpack_from("<813f", body)
        position = 4 * 813
    elif encoding is Encoding.FLOAT16:
        exponents = struct.unpack_from("<3h", body)
        position = 6
        for exponent, size in zip(exponents, sizes, strict=True):
            halves = struct.unpack_from(f"<{size}e", body, position)
            values += [math.ldexp(half, exponent) for half in halves]
            position += 2 * size
    else:
        scales = list(struct.unpack_from(f"<{BLOCKS}f", body))
        position = 4 * BLOCKS
        for size in sizes:
            for start in range(0, size, BLOCK):
                count = min(BLOCK, size - start)
                scale = scales.pop(0)
                values += [q * scale for q in struct.unpack_from(f"<{count}b", body, position)]
                position += count
    values += struct.unpack_from("<7f", body, position)
    assert position + 28 == len(body)
    return values


def sample(seed: int, magnitude: float = 1.0) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    spread = 10.0 ** generator.uniform(-6, 0, SPEC.size)
    return (generator.standard_normal(SPEC.size) * spread * magnitude).astype(np.float32)


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("magnitude", [1.0, 1e-30, 1e30, 1e-44, 0.0])
def test_decoding_is_what_the_docstring_says(encoding: Encoding, magnitude: float) -> None:
    body = codec(encoding).encode(sample(1, magnitude))
    assert len(body) == codec(encoding).nbytes
    with np.errstate(under="ignore"):
        expected = np.array(reference_decode(encoding, bytes(body)), np.float64).astype(np.float32)
    assert codec(encoding).decode(body).tobytes() == expected.tobytes()


@pytest.mark.parametrize("encoding", list(Encoding))
def test_lengths_are_known_in_advance(encoding: Encoding) -> None:
    expected = {
        Encoding.FLOAT32: 4 * 813,
        Encoding.FLOAT16: 2 * 3 + 2 * 813,
        Encoding.INT8: 4 * BLOCKS + 813,
    }
    assert codec(encoding).nbytes == expected[encoding] + 28


float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(float32s, min_size=1, max_size=20), st.sampled_from(list(Encoding)))
@settings(max_examples=200, deadline=None)
def test_any_finite_vector_survives_within_the_promised_error(
    values: list[float], encoding: Encoding
) -> None:
    vector = np.resize(np.array(values, np.float32), SPEC.size)
    decoded = codec(encoding).decode(codec(encoding).encode(vector))
    assert np.isfinite(decoded).all()
    error = np.abs(decoded.astype(np.float64) - vector)
    for tensor in SPEC.tensors:
        largest = float(np.abs(vector[tensor.where]).max())
        exact = encoding is Encoding.FLOAT32 or tensor.group == "buffers"
        # float16: 11 significant bits near the largest value; int8: half a step of 1/127, and a little
        # for the scale's own rounding. Below the smallest float32 there is nothing to promise.
        allowed = 0.0 if exact else largest * (2.0**-11 if encoding is Encoding.FLOAT16 else 0.51 / 127)
        assert error[tensor.where].max() <= allowed + (0.0 if exact else 2.0**-142)


@given(st.integers(0, 10**6), st.sampled_from(list(Encoding)))
@settings(max_examples=30, deadline=None)
def test_encoding_again_changes_nothing(seed: int, encoding: Encoding) -> None:
    once = codec(encoding).decode(codec(encoding).encode(sample(seed)))
    again = codec(encoding).decode(codec(encoding).encode(once))
    if encoding is Encoding.INT8:
        np.testing.assert_allclose(again, once, rtol=1e-6)  # the scale is divided out anew
    else:
        assert again.tobytes() == once.tobytes()


def test_float16_keeps_relative_precision_of_tiny_tensors() -> None:
    vector = sample(3)
    vector[:300] *= np.float32(1e-12)  # plain half precision would make these zero
    decoded = codec(Encoding.FLOAT16).decode(codec(Encoding.FLOAT16).encode(vector))
    largest = np.abs(vector[:300]).max()
    assert np.abs(decoded[:300] - vector[:300]).max() <= largest * 2.0**-11


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 299, 300, 811, 812, 819])
def test_encoding_refuses_values_that_are_not_finite(encoding: Encoding, bad: float, place: int) -> None:
    vector = sample(4)
    vector[place] = bad
    with pytest.raises(NotFinite):
        codec(encoding).encode(vector)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_a_body_of_another_length_is_refused(encoding: Encoding) -> None:
    body = bytes(codec(encoding).encode(sample(5)))
    for wrong in (b"", body[:-1], body + b"\0", body[1:], body * 2):
        with pytest.raises(MalformedUpdate):
            codec(encoding).decode(wrong)


@pytest.mark.parametrize("exponent", [-126, 114, -32768, 32767])
@pytest.mark.parametrize("tensor", [0, 1, 2])
def test_an_exponent_out_of_range_is_refused(exponent: int, tensor: int) -> None:
    body = codec(Encoding.FLOAT16).encode(sample(6))
    struct.pack_into("<h", body, 2 * tensor, exponent)
    with pytest.raises(MalformedUpdate):
        codec(Encoding.FLOAT16).decode(body)


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf, -1.0, -0.0])
@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_scale_that_is_none_is_refused(scale: float, block: int) -> None:
    body = codec(Encoding.INT8).encode(sample(7))
    struct.pack_into("<f", body, 4 * block, scale)
    with pytest.raises(NotFinite if not math.isfinite(scale) else MalformedUpdate):
        codec(Encoding.INT8).decode(body)


def test_the_byte_no_encoder_writes_is_refused() -> None:
    body = codec(Encoding.INT8).encode(sample(8))
    struct.pack_into("<b", body, 4 * BLOCKS + 812, -128)
    with pytest.raises(MalformedUpdate):
        codec(Encoding.INT8).decode(body)


@given(st.binary(min_size=0, max_size=64), st.sampled_from(list(Encoding)))
@settings(max_examples=100, deadline=None)
def test_random_bytes_decode_or_are_refused_but_never_crash(noise: bytes, encoding: Encoding) -> None:
    body = bytearray(codec(encoding).encode(sample(9)))
    body[: len(noise)] = noise
    body = body[: codec(encoding).nbytes]
    try:
        decoded = codec(encoding).decode(body)
    except MalformedUpdate:
        return
    assert decoded.shape == (SPEC.size,)


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("room", [None, 256, 300, 512, 10_000])
def test_pieces_cover_the_vector_in_order(encoding: Encoding, room: int | None) -> None:
    body = codec(encoding).encode(sample(10))
    scratch = None if room is None else np.empty(room, np.float32)
    expected = codec(encoding).decode(body)
    reached = 0
    for offset, piece in codec(encoding).iter_decoded(memoryview(body), scratch=scratch):
        assert offset == reached
        assert piece.dtype == np.float32
        assert room is None or piece.size <= room
        assert piece.tobytes() == expected[offset : offset + piece.size].tobytes()
        reached += piece.size
    assert reached == SPEC.size
    with pytest.raises(ValueError):
        codec(encoding).iter_decoded(body, scratch=np.empty(255, np.float32))


@pytest.mark.parametrize("encoding", list(Encoding))
def test_bytes_at_odd_addresses_decode_alike(encoding: Encoding) -> None:
    body = bytes(codec(encoding).encode(sample(11)))
    shifted = memoryview(b"\0" + body)[1:]
    assert codec(encoding).decode(shifted).tobytes() == codec(encoding).decode(body).tobytes()
    assert (
        codec(encoding).decode(np.frombuffer(body, np.uint8)).tobytes()
        == codec(encoding).decode(body).tobytes()
    )


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError):
        VectorCodec(SPEC, {"encoder": Encoding.FLOAT32})
    with pytest.raises(ValueError):
        VectorCodec(SPEC, {"encoder": Encoding.FLOAT32, "buffers": "float8"})  # type: ignore[dict-item]
    one = codec(Encoding.FLOAT32)
    with pytest.raises(SpecError):
        one.encode(np.zeros(SPEC.size - 1, np.float32))
    with pytest.raises(SpecError):
        one.decode_into(one.encode(sample(1)), np.zeros(SPEC.size))  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        one.encode_into(sample(1), memoryview(bytearray(one.nbytes - 1)))
