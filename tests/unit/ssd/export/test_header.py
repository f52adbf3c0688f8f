"""What a safetensors file may look like before anything is read or allocated for it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from ssd.export.encoder_file import EncoderFileError, read_encoder
from ssd.export.header import MAX_HEADER_BYTES, MAX_TENSORS, HeaderRefused, check_header

GOOD = save({"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float16)}, metadata={"format": "x"})


def file(path: Path, header: Any, body: bytes = b"", length: int | None = None) -> Path:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content) if length is None else length) + content + body)
    return path


def tensor(begin: int, end: int, shape: Any = None, dtype: Any = "F32") -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [(end - begin) // 4] if shape is None else shape,
        "data_offsets": [begin, end],
    }


def test_a_file_the_library_wrote_passes_with_its_shapes(tmp_path: Path) -> None:
    path = tmp_path / "good"
    path.write_bytes(GOOD)
    assert check_header(path) == {"a": (2, 3), "b": (4,)}
    path.write_bytes(save({}))
    assert check_header(path) == {}


HOSTILE: dict[str, tuple[Any, bytes, int | None]] = {
    "a header longer than the limit": (b" " * 64, b"", MAX_HEADER_BYTES + 1),
    "a header longer than the file": (b"{}", b"", 3),
    "a header of 2^63 bytes": (b"{}", b"", 1 << 63),
    "no JSON": (b"{", b"", None),
    "deep JSON": (b"[" * 100_000, b"", None),
    "a list": ([], b"", None),
    "too many tensors": ({str(i): tensor(0, 0, [0]) for i in range(MAX_TENSORS + 1)}, b"", None),
    "a shape whose product is huge": ({"a": tensor(0, 4, [1 << 52, 1 << 52])}, b"1234", None),
    "a negative dimension": ({"a": tensor(0, 4, [-1])}, b"1234", None),
    "a fraction": ({"a": tensor(0, 4, [1.0])}, b"1234", None),
    "a truth value": ({"a": tensor(0, 4, [True])}, b"1234", None),
    "nine dimensions": ({"a": tensor(0, 4, [1] * 9)}, b"1234", None),
    "an unknown element type": ({"a": tensor(0, 4, dtype="O")}, b"1234", None),
    "an element type that is none": ({"a": tensor(0, 4, dtype=["F32"])}, b"1234", None),
    "another size than the shape says": ({"a": tensor(0, 8, [1])}, b"12345678", None),
    "an overlap": ({"a": tensor(0, 8), "b": tensor(4, 12)}, b"x" * 12, None),
    "a gap": ({"a": tensor(0, 4), "b": tensor(8, 12)}, b"x" * 12, None),
    "bytes past the end": ({"a": tensor(0, 4)}, b"x" * 8, None),
    "too few bytes": ({"a": tensor(0, 8)}, b"x" * 4, None),
    "a backward place": ({"a": tensor(8, 4, [1])}, b"x" * 8, None),
    "a field too many": ({"a": {**tensor(0, 4), "more": 1}}, b"1234", None),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_header_is_refused_before_anything_is_read(tmp_path: Path, kind: str) -> None:
    path = file(tmp_path / "bad", *HOSTILE[kind])
    with pytest.raises(HeaderRefused):
        check_header(path)
    with pytest.raises(EncoderFileError):
        read_encoder(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PK\x03\x04" + bytes(60), "a zip archive, as PyTorch"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9" + bytes(60), "a pickle, as older PyTorch"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "git lfs pull"),
        (b"\x93NUMPY\x01\x00v\x00" + bytes(60), "numpy array"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), "HDF5"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 60, "a GGUF file"),
        (b"\x1f\x8b\x08\0\0\0\0\0\x01" + bytes(60), "gzip"),
        (b"<!doctype html><html>" + bytes(60), "a web page"),
    ],
)
def test_another_kind_of_file_is_called_by_its_name(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    for read, kind in ((check_header, HeaderRefused), (read_encoder, EncoderFileError)):
        with pytest.raises(kind) as refused:
            read(path)
        text = str(refused.value)
        assert told in text
        assert str(path) in text
        assert "safetensors" in text
        # The eight bytes that would be a length there are not shown as one.
        assert "bytes is over the limit" not in text


def test_a_real_file_of_pytorch_is_told_how_to_convert_it(tmp_path: Path) -> None:
    import torch

    for new in (True, False):
        torch.save({"a": torch.zeros(3)}, tmp_path / "x.pth", _use_new_zipfile_serialization=new)
        with pytest.raises(EncoderFileError, match=r"PyTorch.*weights_only=True.*save_file"):
            read_encoder(tmp_path / "x.pth")


def test_a_file_that_is_missing_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EncoderFileError) as refused:
        read_encoder(Path("none.safetensors"))
    assert str(refused.value) == f"{tmp_path}/none.safetensors cannot be read: No such file or directory"


def test_an_empty_and_a_cut_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    for end in range(len(GOOD)):
        path.write_bytes(GOOD[:end])
        with pytest.raises(HeaderRefused):
            check_header(path)


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255))
def test_a_changed_byte_never_gets_further_than_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    content = bytearray(GOOD)
    content[position] = value
    path = tmp_path_factory.mktemp("changed") / "f"
    path.write_bytes(bytes(content))
    try:
        tensors, _ = read_encoder(path)
    except EncoderFileError:
        return
    assert sum(each.size for each in tensors.values()) <= 10
