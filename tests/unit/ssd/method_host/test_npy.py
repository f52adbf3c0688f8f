"""Arrays of numbers as `.npy`: what goes in comes out, and nothing but numbers does either."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ssd.method_host.npy import npy_bytes, npy_header, read_npy

NUMBERS = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes()
)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(NUMBERS, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
def test_every_array_of_numbers_comes_back_with_its_dtype_and_shape(array: NDArray[np.generic]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "array"
        path.write_bytes(npy_bytes(array))
        found = read_npy(path)
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes()
        assert not found.flags.writeable


def test_equal_arrays_have_equal_bytes_however_they_lie_in_memory() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert npy_bytes(array) == npy_bytes(np.asfortranarray(array)) == npy_bytes(array.T.copy().T)


def test_a_header_and_the_values_after_it_are_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(npy_header((3,), "<f4") + np.arange(3, dtype="<f4").tobytes())
    assert read_npy(tmp_path / "a").tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "array", [np.array(["text"]), np.array([object()]), np.array(["2026-01-01"], "M8[D]")]
)
def test_what_is_no_number_is_not_written(array: NDArray[np.generic]) -> None:
    with pytest.raises(ValueError, match="holds no numbers"):
        npy_bytes(array)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "object.npy"
    np.save(path, np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ValueError, match="object"):
        read_npy(path)
    archive = io.BytesIO()
    np.savez(archive, a=np.zeros(2))
    path.write_bytes(archive.getvalue())
    with pytest.raises(ValueError, match="no array of numbers"):
        read_npy(path)


@pytest.mark.parametrize("content", [b"", b"nonsense", npy_bytes(np.zeros(9))[:-1]])
def test_a_broken_file_is_noticed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.npy"
    path.write_bytes(content)
    with pytest.raises((ValueError, OSError)):
        read_npy(path)
