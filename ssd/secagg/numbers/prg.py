"""The pseudo-random generator of masks and rounding: AES-256 in counter mode (NIST SP 800-38A), from `cryptography`.

The stream of a key starts with a zero counter block and byte i of it is byte i % 16 of the encrypted block i // 16, so
any range of a stream is made without what precedes it: chunks and threads begin where they like. A key is used for
one stream only, so the constant start is no reuse. Words are little-endian by definition.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

KEY_NBYTES = 32
CHUNK_NBYTES = 1 << 18
"""Bytes made at a time: with what they are added to they stay in a core's cache."""
BLOCK_NBYTES = 16
_STREAM_NBYTES = BLOCK_NBYTES << 128
_ZEROS = memoryview(bytes(CHUNK_NBYTES))

Words = NDArray[np.uint32] | NDArray[np.uint64]


class Keystream:
    """One key's stream, read in order from a byte position."""

    def __init__(self, key: bytes, start_byte: int = 0) -> None:
        if len(key) != KEY_NBYTES:
            raise ValueError(f"a key of {len(key)} bytes, not {KEY_NBYTES}")
        if not 0 <= start_byte < _STREAM_NBYTES:
            raise ValueError(f"a stream has no byte {start_byte}")
        counter = (start_byte // BLOCK_NBYTES).to_bytes(BLOCK_NBYTES, "big")
        self._encryptor = Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor()
        skipped = start_byte % BLOCK_NBYTES
        if skipped:
            self._encryptor.update(bytes(skipped))

    def read_into(self, room: NDArray[np.uint8], nbytes: int) -> None:
        """Write the next `nbytes` (at most `CHUNK_NBYTES`) to the front of `room`, made by `chunk_room`."""
        self._encryptor.update_into(_ZEROS[:nbytes], room.data)


def chunk_room(nbytes: int = CHUNK_NBYTES) -> NDArray[np.uint8]:
    """Room for a chunk of up to `nbytes`: `update_into` insists on almost a block more than it writes."""
    return np.empty(nbytes + BLOCK_NBYTES, np.uint8)


def keystream(key: bytes, start_byte: int, nbytes: int) -> bytes:
    """Bytes `start_byte` to `start_byte + nbytes` of the key's stream."""
    stream, room, parts = Keystream(key, start_byte), chunk_room(), []
    for start in range(0, nbytes, CHUNK_NBYTES):
        length = min(CHUNK_NBYTES, nbytes - start)
        stream.read_into(room, length)
        parts.append(room[:length].tobytes())
    return b"".join(parts)


def add_keystream(key: bytes, words: Words, start_byte: int, sign: int) -> None:
    """Add sign * (the key's stream from `start_byte`) to the words, in place, modulo 2**32 or 2**64 by the words' dtype.

    Args:
        key: 32 bytes, used for nothing else.
        words: contiguous uint32 or uint64 [n].
        start_byte: where in the stream the first word lies; a multiple of 4.
        sign: +1 or -1.

    Raises:
        ValueError: an argument is not as said; nothing was added.
    """
    check_words(words, start_byte)
    if sign not in (1, -1):
        raise ValueError(f"a mask is added or subtracted, not multiplied by {sign!r}")
    stream, room = Keystream(key, start_byte), chunk_room(min(words.nbytes, CHUNK_NBYTES))
    step = CHUNK_NBYTES // words.itemsize
    for start in range(0, words.size, step):
        add_next(stream, words[start : start + step], room, sign)


def add_next(stream: Keystream, piece: NDArray[Any], room: NDArray[np.uint8], sign: int) -> None:
    """Add (or subtract) the stream's next bytes to a piece of at most a chunk; all was checked before."""
    stream.read_into(room, piece.nbytes)
    mask = room[: piece.nbytes].view(piece.dtype.newbyteorder("<"))
    (np.add if sign == 1 else np.subtract)(piece, mask, out=piece)


def check_words(words: Words, start_byte: int) -> None:
    """Raise `ValueError` unless a mask can be added to these words at this position."""
    if words.dtype not in (np.uint32, np.uint64) or words.ndim != 1 or not words.flags.c_contiguous:
        raise ValueError("masks are added to contiguous one-dimensional uint32 or uint64 words")
    if start_byte % 4:
        raise ValueError(f"words do not start at byte {start_byte}")
