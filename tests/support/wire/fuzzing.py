"""Inputs for every handler: well-formed messages full of awkward values, and real traffic with bytes changed.

Plain seeded `random`, not hypothesis: a million inputs have to be made as well as sent. An input is a call's name and
its messages; the same seed makes the same inputs.
"""

from __future__ import annotations

import contextlib
import json
import random
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from ssd_proto.v1 import enrolment_pb2, federation_pb2, operator_pb2

UNPARSABLE = b"\x07"
"""A field number zero of a wire type that does not exist."""


@dataclass(frozen=True)
class Method:
    """What a call takes, as its descriptor says."""

    path: str
    request: type[Message]
    streams: bool
    """Takes more than one message."""
    ours: bool
    """Not a library's: it ends with a reason of ours."""


def _methods() -> dict[str, Method]:
    found = {}
    for file in (federation_pb2, operator_pb2, enrolment_pb2, health_pb2, reflection_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                found[f"{service.name}/{method.name}"] = Method(
                    path=f"/{service.full_name}/{method.name}",
                    request=method.input_type._concrete_class,
                    streams=method.client_streaming,
                    ours=service.full_name.startswith("ssd_proto."),
                )
    return found


METHODS = _methods()
"""Everything there is to call, by service and method: a new one is among them by itself."""
NOBODY = "nobody-"
"""Of identities and clients that are revoked: whatever is said about them, the round is not."""
WORKERS = [f"fuzz-{number}" for number in range(16)]
"""Workers of the fuzzer: they have certificates, and host nobody."""
CALLERS = {
    "Federation/Attend": WORKERS,
    "Renewal/Renew": WORKERS,
    "Federation/FetchBlob": ["alpha"],
    "Federation/SubmitUpdate": ["alpha"],
    "Enrolment/Enroll": ["stranger"],
    "Health/Check": ["observer"],
    "Health/Watch": ["observer"],
    "Health/List": ["observer"],
    "ServerReflection/ServerReflectionInfo": ["observer"],
}
"""Who may call what; everything else is the operator's."""

WRITING = {"Operator/Pause", "Operator/Resume", "Operator/MoveClient", "Operator/Revoke"}
"""Obeyed whatever is in them, which takes a write to the disk each time: their turn comes less often."""
WEIGHTS = [0.2 if call in WRITING else 1.0 for call in METHODS]

INTEGERS = [
    0,
    1,
    2,
    3,
    7,
    127,
    128,
    255,
    65535,
    65536,
    1 << 20,
    (1 << 20) + 1,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
]
WIDE = [1 << 32, (1 << 53) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
FLOATS = [0.0, -0.0, -1.0, 5e-324, 2.2e-308, 1e308, float("nan"), float("inf"), float("-inf")]
TEXTS = [
    "", " ", "a", "client-000", "client-001", "client-003", "alpha", "beta", "../../x", "/etc/passwd", "..", "a/b",
    "\0", "a\nb", "\x1b[31m", "\u202eevil", "é" * 40, "漢字", "🦠", "ﬁ", "%s%n", "{0}", "'; drop table clients; --", "0" * 32,
    "0" * 64, "f" * 64, "F" * 64, "9" * 300, "-1", "NaN", "x" * 65, "x" * 129,
]  # fmt: skip
MEGABYTE = "m" * (1 << 20)


@dataclass(frozen=True)
class Input:
    """What one call is sent."""

    call: str
    messages: tuple[bytes, ...]
    caller: str

    def to_json(self) -> str:
        """For the corpus."""
        messages = [part.hex() for part in self.messages]
        return json.dumps({"call": self.call, "caller": self.caller, "messages": messages})

    @staticmethod
    def from_json(text: str) -> Input:
        """From the corpus."""
        found = json.loads(text)
        return Input(found["call"], tuple(bytes.fromhex(part) for part in found["messages"]), found["caller"])


def tamed(call: str, messages: Iterable[bytes]) -> tuple[bytes, ...]:
    """What a coordinator may be sent without ending the round, or the fuzzer's own rights, on purpose.

    Drain is obeyed whatever the message holds, so it is always one that no parser takes; Revoke names nobody.
    """
    if call == "Operator/Drain":
        return tuple(UNPARSABLE + message for message in messages)
    if call == "Operator/Revoke":
        return tuple(_revoking_nobody(message) for message in messages)
    return tuple(messages)


def _revoking_nobody(message: bytes) -> bytes:
    wish = operator_pb2.RevokeRequest()
    try:
        wish.ParseFromString(message)
    except DecodeError:
        return message
    if wish.WhichOneof("what") == "client":
        wish.client = NOBODY + wish.client
    elif wish.WhichOneof("what") == "identity":
        wish.identity.name = NOBODY + wish.identity.name
    return wish.SerializeToString()


class Fuzzer:
    """Makes inputs. `recorded` is real traffic: call -> messages of it."""

    def __init__(self, seed: int, recorded: Sequence[Input]) -> None:
        self._random = random.Random(seed)
        self._recorded = recorded

    def inputs(self, count: int) -> Iterator[Input]:
        """So many, of all kinds."""
        for _ in range(count):
            kind = self._random.random()
            if kind < 0.15:
                (call,) = self._random.choices(list(METHODS), WEIGHTS)
                made = self._several(
                    call, lambda: self._random.randbytes(self._random.choice([0, 1, 2, 8, 60, 200]))
                )
                yield self._of(call, made)
            elif kind < 0.6:
                yield self._well_formed()
            else:
                base = self._random.choice(self._recorded)
                mutated = tuple(self._mutated(part) for part in base.messages)
                yield Input(base.call, tamed(base.call, mutated), base.caller)

    def _of(self, call: str, messages: Iterable[bytes]) -> Input:
        return Input(call, tamed(call, messages), self._random.choice(CALLERS.get(call, ["operator"])))

    def _several(self, call: str, make: Any) -> tuple[bytes, ...]:
        return tuple(make() for _ in range(self._random.randint(1, 4) if METHODS[call].streams else 1))

    def _well_formed(self) -> Input:
        (call,) = self._random.choices(list(METHODS), WEIGHTS)
        parts = self._several(call, lambda: self.message(METHODS[call].request).SerializeToString())
        made = self._of(call, parts)
        if call == "Federation/Attend" and self._random.random() < 0.7:
            # Past the hello, in every state there is: whole, or with more to come.
            hello = federation_pb2.Hello(
                protocol_min=1,
                protocol_max=1,
                worker=made.caller,
                instance=f"{self._random.getrandbits(128):032x}"
                if self._random.random() < 0.1
                else f"{int(made.caller[5:]):032x}",
                more=self._random.random() < 0.2,
            )
            first = federation_pb2.WorkerMessage(hello=hello).SerializeToString()
            return replace(made, messages=(first, *made.messages))
        return made

    def message(self, kind: Any, depth: int = 0) -> Message:
        """A well-formed message of this kind with whatever fields."""
        message = kind()
        for field in kind.DESCRIPTOR.fields:
            if self._random.random() < 0.5:
                continue
            target = getattr(message, field.name)
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                for _ in range(self._random.randrange(4)):
                    with contextlib.suppress(ValueError):
                        target[self._text()] = self._random.choice(FLOATS)
            elif hasattr(target, "extend"):
                target.extend(self._value(field, depth) for _ in range(self._random.randrange(5)))
            elif field.message_type is not None:
                target.CopyFrom(self._value(field, depth))
            else:
                setattr(message, field.name, self._value(field, depth))
        return message

    def _value(self, field: FieldDescriptor, depth: int) -> Any:
        match field.type:
            case FieldDescriptor.TYPE_MESSAGE:
                assert field.message_type is not None
                return self.message(field.message_type._concrete_class, depth + 1)
            case FieldDescriptor.TYPE_STRING:
                return self._text()
            case FieldDescriptor.TYPE_BYTES:
                return self._random.randbytes(self._random.choice([0, 1, 31, 32, 33, 64, 200]))
            case FieldDescriptor.TYPE_DOUBLE | FieldDescriptor.TYPE_FLOAT:
                return self._random.choice(FLOATS)
            case FieldDescriptor.TYPE_UINT64:
                return self._random.choice(INTEGERS + WIDE)
            case FieldDescriptor.TYPE_UINT32:
                return self._random.choice(INTEGERS)
            case FieldDescriptor.TYPE_BOOL:
                return self._random.random() < 0.5
            case FieldDescriptor.TYPE_ENUM:
                return self._random.choice([0, 1, 2, 3, 4, 127, (1 << 31) - 1])
        return self._random.choice([-(1 << 31), -1, 0, 1, (1 << 31) - 1])

    def _text(self) -> str:
        kind = self._random.random()
        if kind < 0.002:
            return MEGABYTE
        if kind < 0.8:
            return self._random.choice(TEXTS)
        return "".join(
            chr(self._random.choice([0x41, 0x2F, 0x2E, 0xE9, 0x4E2D, 0x1F9A0, 0x200B, 1])) for _ in range(6)
        )

    def _mutated(self, data: bytes) -> bytes:
        """Some bytes flipped, cut out, doubled, put in, or replaced by an integer at its edge."""
        changed = bytearray(data)
        for _ in range(self._random.choice([0, 1, 1, 2, 3, 8])):
            place = self._random.randrange(len(changed) + 1)
            match self._random.randrange(6):
                case 0:
                    changed[place : place + 1] = self._random.randbytes(1)
                case 1:
                    del changed[place : place + self._random.randint(1, 8)]
                case 2:
                    changed[place:place] = changed[place : place + self._random.randint(1, 40)]
                case 3:
                    changed[place:place] = self._random.randbytes(self._random.randrange(12))
                case 4:
                    edge = struct.pack("<Q", self._random.choice(INTEGERS + WIDE))
                    changed[place : place + 8] = edge
                case _:
                    changed[place:place] = b"\xff" * 9 + b"\x01"
        return bytes(changed)


def corpus(folder: Path) -> list[Input]:
    """What was kept."""
    return [Input.from_json(path.read_text()) for path in sorted(folder.glob("*.json"))]
