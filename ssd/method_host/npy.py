"""Arrays of numbers as `.npy` bytes: self-describing, mappable, and never with a pickled object in them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = "biuf"
"""numpy's letters for booleans, signed and unsigned integers and floats."""


def npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """What stands before the values of an array that is written piece by piece."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    )
    return header.getvalue()


def npy_bytes(array: NDArray[Any]) -> bytes:
    """The file of an array, in C order.

    Raises:
        ValueError: it holds something else than numbers.
    """
    if array.dtype.kind not in KINDS:
        raise ValueError(f"an array of {array.dtype} holds no numbers")
    # (`ascontiguousarray` would give a scalar a dimension.)
    return npy_header(array.shape, array.dtype.str) + array.tobytes()


def read_npy(path: Path) -> NDArray[Any]:
    """The array in a file, mapped read-only.

    Raises:
        ValueError: the file is no array of numbers.
        OSError: it cannot be read.
    """
    try:
        loaded: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except EOFError as error:
        raise ValueError("the file is empty") from error
    if isinstance(loaded, np.ndarray) and loaded.dtype.kind in KINDS:
        return loaded
    raise ValueError("the file is no array of numbers")
