"""Many masks onto one vector: chunk by chunk, all keys over a chunk while it is in cache, ranges on several threads.

The result does not depend on chunks or threads, as every mask byte has its place in its key's stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from ssd.secagg.numbers.prg import (
    CHUNK_NBYTES,
    KEY_NBYTES,
    Keystream,
    Words,
    add_next,
    check_words,
    chunk_room,
)


class MaskKey(NamedTuple):
    """One mask: the key of its stream, and whether it is added (+1) or subtracted (-1)."""

    key: bytes
    sign: int

    def __repr__(self) -> str:
        """Without the key: it must not get into a log by accident."""
        return f"MaskKey(sign={self.sign})"


def negated(keys: Sequence[MaskKey]) -> list[MaskKey]:
    """The same masks with the opposite signs."""
    return [MaskKey(key, -sign) for key, sign in keys]


def apply_masks(
    words: Words,
    start_byte: int,
    keys: Sequence[MaskKey],
    threads: int = 1,
    *,
    chunk_nbytes: int = CHUNK_NBYTES,
) -> None:
    """Add the sum of sign * PRG(key) to the words, in place, modulo 2**32 or 2**64 by the words' dtype.

    Args:
        words: contiguous uint32 or uint64 [n].
        start_byte: where in every stream the first word lies; a multiple of 4.
        keys: the masks; their order does not matter.
        threads: how many ranges are worked on at once. Generating and adding release the interpreter's lock.
        chunk_nbytes: bytes worked on at a time, a multiple of 8 and at most 256 KiB.

    Extra memory is one chunk a thread and about 1 KiB a key and thread.

    Raises:
        ValueError: a key, a sign or another argument is not as said; nothing was added.
    """
    check_words(words, start_byte)
    if not 8 <= chunk_nbytes <= CHUNK_NBYTES or chunk_nbytes % 8:
        raise ValueError(f"chunks of {chunk_nbytes} bytes")
    if threads < 1:
        raise ValueError(f"{threads} threads")
    for key, sign in keys:
        if len(key) != KEY_NBYTES or sign not in (1, -1):
            raise ValueError("a mask is a 32-byte key and a sign of +1 or -1")
    step = chunk_nbytes // words.itemsize
    chunks = -(-words.size // step)
    per_thread = -(-chunks // threads) * step
    ranges = [(start, min(start + per_thread, words.size)) for start in range(0, words.size, per_thread or 1)]
    if len(ranges) <= 1:
        for start, stop in ranges:
            _mask_range(words[start:stop], start_byte + start * words.itemsize, keys, step)
        return
    with ThreadPoolExecutor(len(ranges)) as pool:
        running = [
            pool.submit(_mask_range, words[start:stop], start_byte + start * words.itemsize, keys, step)
            for start, stop in ranges
        ]
        for future in running:
            future.result()


def _mask_range(words: Words, start_byte: int, keys: Sequence[MaskKey], step: int) -> None:
    streams = [(Keystream(key, start_byte), sign) for key, sign in keys]
    room = chunk_room(min(words.nbytes, step * words.itemsize))
    for start in range(0, words.size, step):
        piece = words[start : start + step]
        for stream, sign in streams:
            add_next(stream, piece, room, sign)
