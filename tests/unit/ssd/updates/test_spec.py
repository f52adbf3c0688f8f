"""The parameter spec: layout, digests, and what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.updates.spec import Kind, ParameterSpec, SpecError, clamp_variances, model_digest

ENTRIES: list[tuple[str, tuple[int, ...], str, Kind]] = [
    ("conv.weight", (2, 3), "encoder", Kind.PARAMETER),
    ("conv.bias", (), "encoder", Kind.PARAMETER),
    ("norm.mean", (3,), "buffers", Kind.BUFFER),
    ("norm.var", (3,), "buffers", Kind.VARIANCE),
]


def test_tensors_lie_back_to_back_and_groups_are_slices() -> None:
    spec = ParameterSpec.build(ENTRIES)
    assert [tensor.offset for tensor in spec.tensors] == [0, 6, 7, 10]
    assert spec.size == 13
    assert list(spec.groups.items()) == [("encoder", slice(0, 7)), ("buffers", slice(7, 13))]
    assert spec.tensors[1].size == 1
    assert spec.tensors[3].where == slice(10, 13)


def test_json_brings_back_the_same_spec() -> None:
    spec = ParameterSpec.build(ENTRIES)
    again = ParameterSpec.from_json(spec.to_json())
    assert again == spec
    assert again.digest == spec.digest


def change(value: dict[str, Any], index: int, **fields: object) -> None:
    value["tensors"][index].update(fields)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda value: value.pop("format"),
        lambda value: value.update(format="ssd-spec-v0"),
        lambda value: value.pop("digest"),
        lambda value: value.update(digest="0" * 64),
        lambda value: value.update(tensors=[]),
        lambda value: value.update(tensors=None),
        lambda value: value["tensors"].reverse(),
        lambda value: value["tensors"].pop(),
        lambda value: change(value, 0, shape=[3, 2]),
        lambda value: change(value, 0, shape=[0]),
        lambda value: change(value, 0, shape=[-6, -1]),
        lambda value: change(value, 0, shape=[2.0, 3.0]),
        lambda value: change(value, 0, shape=[True, 6]),
        lambda value: change(value, 0, shape=[1 << 50]),
        lambda value: change(value, 0, name="renamed"),
        lambda value: change(value, 1, name="conv.weight"),
        lambda value: change(value, 1, name=""),
        lambda value: change(value, 1, name=None),
        lambda value: change(value, 1, offset=7),
        lambda value: change(value, 0, offset=False),
        lambda value: change(value, 1, group="buffers"),
        lambda value: change(value, 2, group=""),
        lambda value: change(value, 3, kind="buffer"),
        lambda value: change(value, 3, kind="unknown"),
    ],
)
def test_json_that_was_tampered_with_is_refused(spoil: Callable[[dict[str, Any]], object]) -> None:
    value = ParameterSpec.build(ENTRIES).to_json()
    spoil(value)
    with pytest.raises(SpecError):
        ParameterSpec.from_json(value)


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [("a", (0,), "g", Kind.PARAMETER)],
        [("a", (1,), "g", Kind.PARAMETER), ("a", (1,), "g", Kind.PARAMETER)],
        [("a", (1,), "g", Kind.PARAMETER), ("b", (1,), "h", Kind.BUFFER), ("c", (1,), "g", Kind.PARAMETER)],
    ],
)
def test_impossible_layouts_are_refused(entries: list[tuple[str, tuple[int, ...], str, Kind]]) -> None:
    with pytest.raises(SpecError):
        ParameterSpec.build(entries)


def test_whatever_a_byte_means_is_part_of_the_digest() -> None:
    variants = [ENTRIES]
    for index, entry in [
        (0, ("conv.weight", (3, 2), "encoder", Kind.PARAMETER)),
        (0, ("conv.w", (2, 3), "encoder", Kind.PARAMETER)),
        (1, ("conv.bias", (1,), "encoder", Kind.PARAMETER)),
        (1, ("conv.bias", (), "head", Kind.PARAMETER)),
        (3, ("norm.var", (3,), "buffers", Kind.BUFFER)),
    ]:
        variants.append([*ENTRIES[:index], entry, *ENTRIES[index + 1 :]])
    assert len({ParameterSpec.build(entries).digest for entries in variants}) == len(variants)


def test_a_model_digest_is_what_the_docstring_says() -> None:
    spec = ParameterSpec.build(ENTRIES)
    vector = np.arange(13, dtype=np.float32)
    expected = hashlib.sha256(bytes.fromhex(spec.digest) + vector.astype("<f4").tobytes()).hexdigest()
    assert model_digest(spec, vector) == expected
    assert model_digest(spec, np.arange(26, dtype=np.float32)[::2] / 2) == expected, "strides do not matter"
    # -0.0 equals 0.0 but is another version: the bits are what counts.
    assert model_digest(spec, np.where(vector == 0, np.float32(-0.0), vector)) != expected
    for wrong in (vector[:-1], vector.astype(np.float64), vector.reshape(1, -1)):
        with pytest.raises(SpecError):
            model_digest(spec, wrong)  # type: ignore[arg-type]  # the point of the test


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=13, max_size=13))
@settings(max_examples=50, deadline=None)
def test_only_variances_are_clamped(values: list[float]) -> None:
    spec = ParameterSpec.build(ENTRIES)
    vector = np.array(values, np.float32)
    before = vector.copy()
    clamp_variances(spec, vector)
    assert vector[:10].tobytes() == before[:10].tobytes()
    assert not np.signbit(vector[10:]).any(), "negative values and -0 become +0"
    kept = before[10:] > 0
    assert (vector[10:][kept] == before[10:][kept]).all()
