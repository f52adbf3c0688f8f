"""Inputs for every handler: well-formed messages full of awkward values, and real traffic with bytes changed.

Plain seeded `random`, not hypothesis: a million inputs have to be made as well as sent. An input is a call's name and
its messages; the same seed makes the same inputs.
"""

from __future__ import annotations

import contextlib
import json
import random
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from hostile import Site
from raw_worker import RawWorker
from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import operator_pb2 as operator_pb
from wire_calls import FEDERATION, OPERATOR, as_bytes, operator_status

HANG_SECONDS = 60.0
OPERATOR_REQUESTS: dict[str, type[Message]] = {
    "Status": operator_pb.StatusRequest,
    "Rounds": operator_pb.RoundsRequest,
    "Evaluations": operator_pb.EvaluationsRequest,
    "Clients": operator_pb.ClientsRequest,
    "Resume": operator_pb.ResumeRequest,
    "Version": operator_pb.VersionRequest,
    "Download": operator_pb.DownloadRequest,
    "Revoke": operator_pb.RevokeRequest,
}
"""Not Pause and Drain, which obey; not Watch, which goes on for ever. A Revoke only ever names nobody."""
REQUESTS: dict[str, type[Message]] = {
    "Attend": pb.WorkerMessage,
    "FetchBlob": pb.FetchBlobRequest,
    "SubmitUpdate": pb.UploadPart,
    **OPERATOR_REQUESTS,
}
STREAMS = ("Attend", "SubmitUpdate")
NOBODY = "fuzz-"
"""Workers of the fuzzer are called so, and host nobody: whatever they say, the round is not about them."""

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

    def to_json(self) -> str:
        """For the corpus."""
        return json.dumps({"call": self.call, "messages": [part.hex() for part in self.messages]})

    @staticmethod
    def from_json(text: str) -> Input:
        """From the corpus."""
        found = json.loads(text)
        return Input(found["call"], tuple(bytes.fromhex(part) for part in found["messages"]))


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
                call = self._random.choice(list(REQUESTS))
                yield Input(
                    call, self._several(call, lambda: self._random.randbytes(self._random.randrange(200)))
                )
            elif kind < 0.6:
                yield self._well_formed()
            else:
                base = self._random.choice(self._recorded)
                yield Input(base.call, tuple(self._mutated(part) for part in base.messages))

    def _several(self, call: str, make: Any) -> tuple[bytes, ...]:
        return tuple(make() for _ in range(self._random.randint(1, 4) if call in STREAMS else 1))

    def _well_formed(self) -> Input:
        call = self._random.choice(list(REQUESTS))
        if call == "Revoke":
            # A well-formed one of a client that exists obeys.
            return Input(call, (operator_pb.RevokeRequest(client=NOBODY + self._text()).SerializeToString(),))
        parts = self._several(call, lambda: self.message(REQUESTS[call]).SerializeToString())
        if call == "Attend" and self._random.random() < 0.7:
            # Past the hello, in every state there is: whole, or with more to come.
            hello = pb.Hello(
                protocol_min=1,
                protocol_max=1,
                worker=f"{NOBODY}{self._random.randrange(1000)}",
                instance=f"{self._random.getrandbits(128):032x}",
                more=self._random.random() < 0.2,
            )
            parts = (pb.WorkerMessage(hello=hello).SerializeToString(), *parts)
        return Input(call, parts)

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


def recorded(site: Site) -> list[Input]:
    """Traffic of an honest worker and operator, with a statistic that is NaN: none of its updates may get in."""
    plan, task = site.alpha.plan, site.task
    assert plan is not None
    client = site.cohort[0]
    spoilt = bytearray(site.honest[client][0])
    spoilt[plan.codec.nbytes : plan.codec.nbytes + 8] = struct.pack("<d", float("nan"))
    hello = pb.Hello(protocol_min=1, protocol_max=1, worker=f"{NOBODY}x", instance="a" * 32, build="x")
    ups: list[Mapping[str, Message]] = [
        {"heartbeat": pb.Heartbeat(busy_share=0.5, uptime_seconds=3)},
        {
            "progress": pb.Progress(
                round=task.round, attempt=task.attempt, client=client, step=1, steps=2, seconds=0.5
            )
        },
        {
            "task_failed": pb.TaskFailed(
                round=task.round, attempt=task.attempt, client=client, reason="data_missing"
            )
        },
        {"version_held": pb.VersionHeld(number=1, model_digest=task.base.model_digest)},
        {
            "evaluation_done": pb.EvaluationDone(
                version=1, values={"accuracy": 0.5}, clients=[client], on_clients=True
            )
        },
        {
            "clients_changed": pb.ClientsChanged(
                clients=[pb.HostedClient(client="nobody", last_committed_round=1)]
            )
        },
    ]
    attends = [[pb.WorkerMessage(hello=hello), pb.WorkerMessage(**up)] for up in ups]
    fold = site.alpha.envelope(task, {client: 1}, bytes(spoilt), fold=True)
    calls: list[tuple[str, Sequence[Message]]] = [
        *(("Attend", parts) for parts in attends),
        ("SubmitUpdate", [pb.UploadPart(envelope=site.envelope(client, bytes(spoilt))), _chunk(spoilt)]),
        ("SubmitUpdate", [pb.UploadPart(envelope=fold), _chunk(spoilt)]),
        ("FetchBlob", [pb.FetchBlobRequest(digest=task.base.full.digest)]),
        ("Download", [operator_pb.DownloadRequest(digest=task.base.full.digest)]),
        ("Version", [operator_pb.VersionRequest(number=1)]),
        ("Rounds", [operator_pb.RoundsRequest(limit=3)]),
    ]
    return [Input(call, tuple(part.SerializeToString() for part in parts)) for call, parts in calls]


def _chunk(body: bytes) -> pb.UploadPart:
    return pb.UploadPart(chunk=pb.Chunk(offset=0, data=bytes(body)))


def fire(worker: RawWorker, inputs: Iterable[Input]) -> None:
    """All at once over one channel; every call ends in time with a status somebody chose.

    Raises:
        AssertionError: naming the input.
    """
    calls = []
    for each in inputs:
        service = OPERATOR if each.call in OPERATOR_REQUESTS else FEDERATION
        path = f"{service}/{each.call}"
        request: Any = iter(each.messages) if each.call in STREAMS else each.messages[0]
        kind = worker.channel.stream_stream if each.call in STREAMS else worker.channel.unary_stream
        calls.append(
            (each, kind(path, as_bytes, bytes)(request, metadata=worker.metadata(), timeout=HANG_SECONDS))
        )
    for each, call in calls:
        with contextlib.suppress(grpc.RpcError):
            for _ in call:
                pass
        reason = dict(call.trailing_metadata() or ()).get("ssd-reason")
        # UNKNOWN is what an exception in a handler becomes, and a hang ends with the deadline.
        chosen = (call.code() is grpc.StatusCode.OK) != bool(reason)
        assert chosen, (each.to_json()[:2000], call.code(), call.details())
        assert call.code() not in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL), (
            each.to_json()[:2000],
            call.details(),
        )
    assert operator_status(worker.channel).phase == "training"


def corpus(folder: Path) -> list[Input]:
    """What was kept."""
    return [Input.from_json(path.read_text()) for path in sorted(folder.glob("*.json"))]
