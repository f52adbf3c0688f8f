"""A model version as a `safetensors` file, made while it is read: a header, then the vector's bytes as they lie.

https://github.com/huggingface/safetensors#format: eight bytes with the length of a JSON header, the header, the
tensors. A version's blob is its tensors back to back in float32, little-endian, which is the body already.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from coordinator.ports.blobs import BlobReader
from ssd.updates.spec import ParameterSpec

ALIGNMENT = 8


class ModelFile:
    """Bytes of the file.

    Args:
        spec: of the vector.
        reader: of the version's whole blob; closed with this.
        metadata: text for the header.
    """

    def __init__(self, spec: ParameterSpec, reader: BlobReader, metadata: Mapping[str, str]) -> None:
        self._reader = reader
        self._head = header(spec, metadata)
        self.size = len(self._head) + reader.info.size

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on, which lies within the file.

        Raises:
            BlobCorrupt, StorageFailed: from the blob.
        """
        own = self._head[offset : offset + size]
        rest = size - len(own)
        if rest <= 0:
            return own
        return own + self._reader.read(max(0, offset - len(self._head)), rest)

    def close(self) -> None:
        """Let go of the blob."""
        self._reader.close()


def header(spec: ParameterSpec, metadata: Mapping[str, str]) -> bytes:
    """The file's beginning, with its length."""
    tensors: dict[str, Any] = {"__metadata__": dict(metadata)}
    for tensor in spec.tensors:
        begin = 4 * tensor.offset
        tensors[tensor.name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [begin, begin + 4 * tensor.size],
        }
    text = json.dumps(tensors, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text
