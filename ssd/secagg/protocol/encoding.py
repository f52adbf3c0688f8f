"""The canonical encoding of records: one byte form for the wire, for hashes, for signatures and for the transcript.

A record is its fields in declared order, each written by a `Field`: unsigned integers as 8 bytes big-endian,
fixed-size bytes raw, byte strings and texts with a 4-byte length, lists with a 4-byte count. Nothing is optional and
nothing is padded, so no two byte strings mean the same record. Reading checks every length against what is there
before it allocates, and writing checks what reading would.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from ssd.secagg.protocol.errors import MalformedMessage

U64_BYTES = 8
LENGTH_BYTES = 4
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")


class Reader:
    """Takes bytes from the front of a message."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not yet taken."""
        return len(self._content) - self._at

    def take(self, count: int) -> bytes:
        """The next `count` bytes.

        Raises:
            MalformedMessage: there are fewer.
        """
        if count > self.left:
            raise MalformedMessage("the message ends too early")
        taken = self._content[self._at : self._at + count]
        self._at += count
        return taken


class Field(ABC):
    """How one value is written and read. `shortest` is the least number of bytes it can take."""

    shortest: int

    @abstractmethod
    def write(self, value: Any, into: bytearray) -> None:
        """Append the value; raises MalformedMessage if it has no form."""

    @abstractmethod
    def read(self, reader: Reader) -> Any:
        """The value; raises MalformedMessage if the bytes have none."""


class _U64(Field):
    shortest = U64_BYTES

    def write(self, value: Any, into: bytearray) -> None:
        """Append the value."""
        if type(value) is not int or not 0 <= value < 1 << 64:
            raise MalformedMessage("a number must be whole, not negative and below 2^64")
        into += value.to_bytes(U64_BYTES, "big")

    def read(self, reader: Reader) -> int:
        """The value."""
        return int.from_bytes(reader.take(U64_BYTES), "big")


class Fixed(Field):
    """Exactly `size` bytes."""

    def __init__(self, size: int) -> None:
        self.shortest = size

    def write(self, value: Any, into: bytearray) -> None:
        """Append the value."""
        if type(value) is not bytes or len(value) != self.shortest:
            raise MalformedMessage(f"a field must have exactly {self.shortest} bytes")
        into += value

    def read(self, reader: Reader) -> bytes:
        """The value."""
        return reader.take(self.shortest)


class Bytes(Field):
    """Bytes whose length is one of `sizes`."""

    shortest = LENGTH_BYTES

    def __init__(self, *sizes: int) -> None:
        self._sizes = sizes

    def write(self, value: Any, into: bytearray) -> None:
        """Append the value."""
        if type(value) is not bytes or len(value) not in self._sizes:
            raise MalformedMessage(f"a field must have one of {self._sizes} bytes")
        into += len(value).to_bytes(LENGTH_BYTES, "big") + value

    def read(self, reader: Reader) -> bytes:
        """The value."""
        size = int.from_bytes(reader.take(LENGTH_BYTES), "big")
        if size not in self._sizes:
            raise MalformedMessage(f"a field must have one of {self._sizes} bytes, not {size}")
        return reader.take(size)


class Text(Field):
    """UTF-8 of at most `longest` bytes that `allowed` accepts."""

    shortest = LENGTH_BYTES

    def __init__(self, longest: int, allowed: Callable[[str], object] | None = None) -> None:
        self._longest = longest
        self._allowed = allowed or (lambda _: True)

    def write(self, value: Any, into: bytearray) -> None:
        """Append the value."""
        if not isinstance(value, str):
            raise MalformedMessage("a text is due")
        try:
            raw = str(value).encode()
        except UnicodeEncodeError as error:
            raise MalformedMessage("a text must be proper UTF-8") from error
        if len(raw) > self._longest or not self._allowed(value):
            raise MalformedMessage("a text is too long or not one of the allowed")
        into += len(raw).to_bytes(LENGTH_BYTES, "big") + raw

    def read(self, reader: Reader) -> str:
        """The value."""
        size = int.from_bytes(reader.take(LENGTH_BYTES), "big")
        if size > self._longest:
            raise MalformedMessage(f"a text has at most {self._longest} bytes, not {size}")
        try:
            value = reader.take(size).decode()
        except UnicodeDecodeError as error:
            raise MalformedMessage("a text must be proper UTF-8") from error
        if not self._allowed(value):
            raise MalformedMessage("a text is not one of the allowed")
        return value


class Record(Field):
    """A record within a record: a class whose constructor takes its fields by name."""

    def __init__(self, kind: type, /, **fields: Field) -> None:
        self._kind = kind
        self._fields = fields
        self.shortest = sum(field.shortest for field in fields.values())

    def write(self, value: Any, into: bytearray) -> None:
        """Append the value."""
        if type(value) is not self._kind:
            raise MalformedMessage(f"{self._kind.__name__} is due")
        for name, field in self._fields.items():
            field.write(getattr(value, name), into)

    def read(self, reader: Reader) -> Any:
        """The value."""
        return self._kind(**{name: field.read(reader) for name, field in self._fields.items()})


class Sorted(Field):
    """A tuple of at most `longest` items, strictly ascending by `key`: sorted, nothing twice."""

    shortest = LENGTH_BYTES

    def __init__(self, item: Field, longest: int, key: Callable[[Any], Any] = lambda item: item) -> None:
        self._item = item
        self._longest = longest
        self._key = key

    def write(self, value: Any, into: bytearray) -> None:
        """Append the value."""
        if type(value) is not tuple or len(value) > self._longest:
            raise MalformedMessage(f"a list must be a tuple of at most {self._longest}")
        into += len(value).to_bytes(LENGTH_BYTES, "big")
        for item in value:
            self._item.write(item, into)
        self._check_order(value)

    def read(self, reader: Reader) -> tuple[Any, ...]:
        """The value."""
        count = int.from_bytes(reader.take(LENGTH_BYTES), "big")
        if count > self._longest or count * self._item.shortest > reader.left:
            raise MalformedMessage(f"a list claims {count} items: more than allowed, or than there are bytes")
        value = tuple(self._item.read(reader) for _ in range(count))
        self._check_order(value)
        return value

    def _check_order(self, value: tuple[Any, ...]) -> None:
        keys = [self._key(item) for item in value]
        if any(first >= second for first, second in pairwise(keys)):
            raise MalformedMessage("a list is not sorted, or names somebody twice")


U64 = _U64()
NAME = Text(64, _NAME.fullmatch)
"""A worker's name, as certificates spell it (`ssd.trust.names`)."""
CODE = Text(64, _CODE.fullmatch)
DETAIL = Text(1024)
