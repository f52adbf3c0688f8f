"""Calls in slow motion or in the wrong shape, over real gRPC, and how they ended."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ssd.digest import CHUNK_BYTES
from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import operator_pb2 as operator_pb
from wire.raw_worker import RawWorker

FEDERATION = "/ssd_proto.v1.Federation"
OPERATOR = "/ssd_proto.v1.Operator"
PATIENCE = 30.0
"""Seconds for a call that is answered or refused at once."""
UPLOAD_PATIENCE = 600.0
"""Seconds for an upload, which stays open while others are sent: many bodies take long on a busy machine."""


@dataclass(frozen=True)
class Outcome:
    """How a call ended."""

    code: grpc.StatusCode
    reason: str
    detail: str = ""
    replies: list[Any] = field(default_factory=list)

    @property
    def verdict(self) -> pb.Verdict | None:
        for reply in self.replies:
            if isinstance(reply, pb.UploadReply) and reply.WhichOneof("kind") == "verdict":
                return reply.verdict
        return None


def as_bytes(message: Any) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def changed(envelope: pb.Envelope, **changes: Any) -> pb.Envelope:
    """A copy with other fields."""
    fields = {descriptor.name: value for descriptor, value in envelope.ListFields()}
    return pb.Envelope(**{**fields, **changes})


def outcome_of(call: Any, replies: list[Any]) -> Outcome:
    trailing = dict(call.trailing_metadata() or ())
    return Outcome(call.code(), str(trailing.get("ssd-reason", "")), call.details() or "", replies)


def stream(
    channel: grpc.Channel,
    path: str,
    messages: Iterable[Any],
    reply: Any,
    *,
    metadata: Any = None,
    keep_open: bool = False,
) -> Outcome:
    """A call with any number of messages up. `keep_open`: the sender waits for the status instead of ending."""
    over = threading.Event()

    def up() -> Iterator[Any]:
        yield from messages
        if keep_open:
            over.wait(PATIENCE)

    call = channel.stream_stream(path, as_bytes, reply.FromString)(up(), metadata=metadata, timeout=PATIENCE)
    replies = []
    with contextlib.suppress(grpc.RpcError):
        replies.extend(call)
    over.set()
    return outcome_of(call, replies)


def ask(channel: grpc.Channel, path: str, request: Any, reply: Any, *, metadata: Any = None) -> Outcome:
    """A call with one message up."""
    call = channel.unary_stream(path, as_bytes, reply.FromString)(
        request, metadata=metadata, timeout=PATIENCE
    )
    replies = []
    with contextlib.suppress(grpc.RpcError):
        replies.extend(call)
    return outcome_of(call, replies)


class Upload:
    """An upload in slow motion."""

    def __init__(self, worker: RawWorker, envelope: Any, *, metadata: Any = None) -> None:
        self._up: queue.Queue[Any] = queue.Queue()
        self.call = worker.channel.stream_stream(
            f"{FEDERATION}/SubmitUpdate", as_bytes, pb.UploadReply.FromString
        )(
            iter(self._up.get, None),
            metadata=worker.metadata() if metadata is None else metadata,
            timeout=UPLOAD_PATIENCE,
        )
        self.replies: list[pb.UploadReply] = []
        self.offset = 0
        self.send(pb.UploadPart(envelope=envelope) if isinstance(envelope, pb.Envelope) else envelope)

    def send(self, message: Any) -> None:
        self._up.put(message)

    def send_chunk(self, offset: int, data: bytes) -> None:
        self.send(pb.UploadPart(chunk=pb.Chunk(offset=offset, data=bytes(data))))

    def send_body(self, body: bytes, stop: int | None = None, step: int = CHUNK_BYTES) -> None:
        """The body from where the coordinator wants it up to `stop`."""
        end = len(body) if stop is None else stop
        while self.offset < end:
            size = min(step, CHUNK_BYTES - self.offset % CHUNK_BYTES, end - self.offset)
            self.send_chunk(self.offset, body[self.offset : self.offset + size])
            self.offset += size

    def reply(self) -> pb.UploadReply | None:
        """The next reply; None at the end of the call."""
        try:
            reply = next(self.call)
        except (StopIteration, grpc.RpcError):
            return None
        self.replies.append(reply)
        return reply

    def proceeded(self) -> bool:
        """Wait until the coordinator takes the body, or ends the call."""
        while (reply := self.reply()) is not None:
            if reply.WhichOneof("kind") == "proceed":
                self.offset = reply.proceed.offset
                return True
            if reply.WhichOneof("kind") == "verdict":
                return False
        return False

    def end(self) -> None:
        """Send nothing more."""
        self._up.put(None)

    def outcome(self) -> Outcome:
        """Wait for the end of the call without ending it."""
        while self.reply() is not None:
            pass
        self.end()
        return outcome_of(self.call, list(self.replies))


def operator_status(channel: grpc.Channel) -> operator_pb.StatusReply:
    """The status over a channel at hand."""
    call = channel.unary_unary(
        f"{OPERATOR}/Status", operator_pb.StatusRequest.SerializeToString, operator_pb.StatusReply.FromString
    )
    return call(operator_pb.StatusRequest(), timeout=PATIENCE)


def reflected(channel: grpc.Channel) -> set[str]:
    """Full names of all methods of all services the coordinator says it has."""

    def asked(
        *requests: reflection_pb2.ServerReflectionRequest,
    ) -> list[reflection_pb2.ServerReflectionResponse]:
        return list(
            reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(requests), timeout=20)
        )

    (listed,) = asked(reflection_pb2.ServerReflectionRequest(list_services=""))
    methods = set()
    for service in listed.list_services_response.service:
        (found,) = asked(reflection_pb2.ServerReflectionRequest(file_containing_symbol=service.name))
        for content in found.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(content)
            for declared in file.service:
                if f"{file.package}.{declared.name}" == service.name:
                    methods |= {f"/{service.name}/{method.name}" for method in declared.method}
    return methods
