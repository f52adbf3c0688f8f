"""A PNG file without its texts and colour profile, for a reader that refuses long ones.

Programs write their settings, and cameras their thumbnails and profiles, into chunks beside the pixels; Pillow limits
what such a chunk may unpack to. The pixels do not depend on them (PNG specification, third edition, section 11.3).
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LEFT_OUT = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})
MAX_BYTES = 1 << 30
"""Larger files are not read whole."""


def without_texts(file: BinaryIO) -> io.BytesIO | None:
    """The file without `LEFT_OUT`; None if it is no PNG, too large, or cut off."""
    file.seek(0, io.SEEK_END)
    if file.tell() > MAX_BYTES:
        return None
    file.seek(0)
    if file.read(len(SIGNATURE)) != SIGNATURE:
        return None
    kept = io.BytesIO()
    kept.write(SIGNATURE)
    while head := file.read(8):
        if len(head) < 8:
            return None
        (length,) = struct.unpack(">I", head[:4])
        if head[4:] in LEFT_OUT:
            file.seek(length + 4, io.SEEK_CUR)
            continue
        body = file.read(length + 4)
        if len(body) < length + 4:
            return None
        kept.write(head)
        kept.write(body)
        if head[4:] == b"IEND":
            break
    kept.seek(0)
    return kept
