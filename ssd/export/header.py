"""The header of a `safetensors` file, checked before a library or an allocation sees the file. No torch.

The library takes headers of up to 100 MB, which may name millions of tensors; a file of ours has a few hundred. What is
checked here is the form (https://github.com/huggingface/safetensors#format): an 8-byte length, that much JSON, and
tensors that lie side by side without gap or overlap up to the end of the file.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MAX_HEADER_BYTES = 4 << 20
MAX_TENSORS = 20_000
MAX_DIMENSIONS = 8
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4,
               "U16": 2, "U8": 1, "BOOL": 1}  # fmt: skip


class HeaderRefused(ValueError):
    """The file is no `safetensors` file that may be opened; the message says why."""


_TELLING_BYTES = 32
"""Of a file, after its first eight: enough to tell what it is."""
_FORMATS = (
    (
        b"PK\x03\x04",
        (
            "a zip archive, as PyTorch (.pth, .pt) and numpy (.npz) write: load its tensors with torch.load(PATH,"
            " weights_only=True) and save them with safetensors.torch.save_file"
        ),
    ),
    (
        b"\x80",
        (
            "a pickle, as older PyTorch (.pth, .pt) writes: load its tensors with torch.load(PATH, weights_only=True) and"
            " save them with safetensors.torch.save_file"
        ),
    ),
    (b"version https://git-lfs", "only a pointer of Git LFS: fetch the file itself with `git lfs pull`"),
    (b"\x93NUMPY", "a single numpy array (.npy): save its tensors with safetensors.numpy.save_file"),
    (b"\x89HDF", "an HDF5 file (Keras .h5): save its tensors with safetensors.numpy.save_file"),
    (b"GGUF", "a GGUF file: it holds a language model's quantised tensors, not an encoder's"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"<!DOCTYPE", "a web page, not the file that was to be downloaded: download it again"),
    (b"<html", "a web page, not the file that was to be downloaded: download it again"),
)
"""What other files begin with -> what they are, and what to do."""


def _other_format(start: bytes) -> str:
    """What a file is that begins so; empty if that cannot be told."""
    if start.startswith(b"\x80") and start[1:2] not in {b"\x02", b"\x03", b"\x04", b"\x05"}:
        return ""
    return next((told for begins, told in _FORMATS if start.lower().startswith(begins.lower())), "")


def check_header(path: Path) -> Mapping[str, tuple[int, ...]]:
    """Name -> shape of every tensor.

    Raises:
        HeaderRefused: the file is not what it must be.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise HeaderRefused(f"{path} is too short for a safetensors file")
        (length,) = struct.unpack("<Q", start)
        if length > min(MAX_HEADER_BYTES, size - 8):
            if other := _other_format(start + file.read(_TELLING_BYTES)):
                raise HeaderRefused(f"{path} is {other}; what is read here is a safetensors file")
            raise HeaderRefused(
                f"{path} is no safetensors file, or only a part of one: a header of {length} bytes is over the limit of"
                f" {MAX_HEADER_BYTES}, or over the file's end"
            )
        content = file.read(length)
    try:
        header = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise HeaderRefused(
            f"{path}: no safetensors file: the header is no JSON: {str(error)[:200]}"
        ) from error
    if not isinstance(header, dict):
        raise HeaderRefused(f"{path}: the header is no table of tensors")
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise HeaderRefused(f"{path} names {len(header)} tensors; {MAX_TENSORS} is the limit")
    shapes = {}
    spans = []
    for name, shape, begin, end in _tensors(path, header):
        shapes[name] = shape
        spans.append((begin, end))
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise HeaderRefused(f"{path}: the tensors overlap or leave a gap at byte {position}")
        position = end
    if position != size - 8 - length:
        raise HeaderRefused(f"{path}: the tensors end at byte {position} of {size - 8 - length}")
    return shapes


def _tensors(path: Path, header: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
    for name, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise HeaderRefused(f"{path}: tensor {name[:100]!r} is not described as it must be")
        kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(kind, str) or kind not in _ITEM_BYTES:
            raise HeaderRefused(
                f"{path}: tensor {name[:100]!r} has an element type this program does not know"
            )
        if not _whole(shape) or len(shape) > MAX_DIMENSIONS or not _whole(offsets) or len(offsets) != 2:
            raise HeaderRefused(f"{path}: tensor {name[:100]!r} has no usable shape or place")
        begin, end = offsets
        if end - begin != math.prod(shape) * _ITEM_BYTES[kind]:
            raise HeaderRefused(f"{path}: tensor {name[:100]!r} has another size than its shape says")
        yield name, tuple(shape), begin, end


def _whole(value: object) -> bool:
    return isinstance(value, list) and all(type(each) is int and 0 <= each < 1 << 53 for each in value)
