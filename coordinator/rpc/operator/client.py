"""The Operator service from the outside: what the `ssd-coordinator` verbs call. Plain JSON values come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Any, Self, TypeVar

import grpc

from coordinator.errors import BlobCorrupt, OperatorFault
from coordinator.rpc.operator import json_values as values
from coordinator.rpc.operator.channel import Caller
from coordinator.rpc.serving.status import REASON_KEY
from ssd.digest import BlobHasher
from ssd_proto.v1 import operator_pb2 as pb
from ssd_proto.v1.operator_pb2_grpc import OperatorStub

Json = Any
T = TypeVar("T")
CALL_SECONDS = 30.0
"""Patience with one answer; a drain or a commit under way may keep the coordinator busy for a while."""


class Unreachable(OperatorFault):
    """No coordinator answers at the address."""

    code = "unreachable"


class CallRefused(OperatorFault):
    """The coordinator answered no."""

    code = "refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionFound:
    """A version the coordinator serves."""

    number: int
    model_digest: str
    blob_digest: str
    blob_bytes: int
    declaration: bytes
    """Of the run, as it came; `ssd.updates.declaration.Declaration.from_bytes` reads it."""
    provenance: Mapping[str, Json] = field(default_factory=dict)
    """How it came to be: the fields of the message of that name; empty if the coordinator does not say."""


class OperatorClient:
    """Calls on one coordinator. Every method raises `Unreachable` or `CallRefused` if it comes to nothing.

    Args:
        caller: whom to call, and as whom.
        patience: seconds that one answer may take.

    Raises:
        OperatorFault: it cannot even be tried.
    """

    def __init__(self, caller: Caller, patience: float = CALL_SECONDS) -> None:
        self.address = caller.address
        self._patience = patience
        self._caller = caller
        self._channel = caller.open_channel()
        self._stub = OperatorStub(self._channel)  # type: ignore[no-untyped-call]  # generated code

    def close(self) -> None:
        """Give the connection up."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def status(self, *, details: bool = False) -> dict[str, Json]:
        """The coordinator's state now; `details`: with how far the cohort is and who dropped out, under that name."""
        request = pb.StatusRequest(details=details)
        return values.status(self._ask(lambda: self._stub.Status(request, timeout=self._patience)))

    def watch(self) -> Iterator[dict[str, Json]]:
        """The state now and after every change, for as long as the caller listens."""
        replies = self._stub.Watch(pb.WatchRequest())
        try:
            while True:
                try:
                    reply = self._ask(lambda: next(replies))
                except StopIteration:
                    return
                yield values.status(reply)
        finally:
            replies.cancel()

    def rounds(self, limit: int = 0, *, counts_only: bool = False) -> list[dict[str, Json]]:
        """Round attempts, newest first; `limit` 0: as many as the coordinator sends unasked.

        `counts_only`: without the names of accepted clients.
        """
        request = pb.RoundsRequest(limit=limit, counts_only=counts_only)
        reply = self._ask(lambda: self._stub.Rounds(request, timeout=self._patience))
        return [values.round_record(each) for each in reply.rounds]

    def evaluations(self) -> list[dict[str, Json]]:
        """Everything that was measured in this run, by version."""
        reply = self._ask(lambda: self._stub.Evaluations(pb.EvaluationsRequest(), timeout=self._patience))
        return [values.plain(each) for each in reply.evaluations]

    def clients(self) -> list[dict[str, Json]]:
        """Every registered client, by id."""
        reply = self._ask(lambda: self._stub.Clients(pb.ClientsRequest(), timeout=self._patience))
        return [values.client_record(each) for each in reply.clients]

    def pause(self) -> None:
        """Finish the attempt under way, then start no further one."""
        self._ask(lambda: self._stub.Pause(pb.PauseRequest(), timeout=self._patience))

    def resume(self) -> None:
        """Go on after a pause or halt."""
        self._ask(lambda: self._stub.Resume(pb.ResumeRequest(), timeout=self._patience))

    def drain(self) -> None:
        """Finish the attempt under way, then stop the coordinator. Returns when the wish is noted."""
        self._ask(lambda: self._stub.Drain(pb.DrainRequest(), timeout=self._patience))

    def revoke(self, client: str) -> None:
        """Never sample the client again and refuse its uploads."""
        self._ask(lambda: self._stub.Revoke(pb.RevokeRequest(client=client), timeout=self._patience))

    def revoke_identity(self, role: str, name: str) -> bool:
        """Cut the holder of a certificate off for ever; whether a worker under that name was connected."""
        request = pb.RevokeRequest(identity=pb.Identity(role=role, name=name))
        return bool(self._ask(lambda: self._stub.Revoke(request, timeout=self._patience)).connected)

    def move_client(self, client: str, worker: str) -> str:
        """Give a client to another worker; whose it was before, or ""."""
        request = pb.MoveClientRequest(client=client, worker=worker)
        return str(self._ask(lambda: self._stub.MoveClient(request, timeout=self._patience)).before)

    def version(self, number: int | None = None) -> VersionFound:
        """A version by number; None: the newest."""
        request = pb.VersionRequest(newest=True) if number is None else pb.VersionRequest(number=number)
        reply = self._ask(lambda: self._stub.Version(request, timeout=self._patience))
        return VersionFound(
            number=reply.version.number,
            model_digest=reply.version.model_digest,
            blob_digest=reply.version.full.digest,
            blob_bytes=reply.version.full.size,
            declaration=reply.declaration,
            provenance=values.plain(reply.provenance) if reply.HasField("provenance") else {},
        )

    def download(self, version: VersionFound, into: IO[bytes]) -> None:
        """Write a version's vector (raw little-endian float32) and check every byte of it.

        Raises:
            BlobCorrupt: what arrived does not have the digest.
        """
        parts = self._stub.Download(pb.DownloadRequest(digest=version.blob_digest))
        hasher = BlobHasher()
        try:
            # A coordinator that sends more than it announced is cut off here, not when the disk is full.
            while hasher.size < version.blob_bytes:
                data = self._ask(lambda: next(parts)).data
                hasher.update(data)
                into.write(data)
        except StopIteration:
            pass
        finally:
            parts.cancel()
        if hasher.finish()[2] != version.blob_digest:
            raise BlobCorrupt(
                f"version {version.number} arrived damaged ({hasher.size} of {version.blob_bytes} bytes): try again"
            )

    def _ask(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except grpc.RpcError as error:
            raise self._fault(error) from error

    def _fault(self, error: grpc.RpcError) -> OperatorFault:
        code, details = error.code(), error.details() or ""
        reason = _trailing(error).get(REASON_KEY, "")
        if reason:
            return CallRefused(f"the coordinator at {self.address} refused ({reason}): {details}")
        if code is grpc.StatusCode.UNAVAILABLE:
            why = self._caller.why_not()
            if why:
                return Unreachable(f"no call to {self.address} is possible: {why}")
            return Unreachable(
                f"no coordinator answers at {self.address}: is it running, and is that its listen address? "
                "Say which one with --address or --config"
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return Unreachable(
                f"the coordinator at {self.address} did not answer within {self._patience:.0f} s: look at its log"
            )
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return CallRefused(
                f"{self.address} does not know this call: it is no coordinator, or an older version of one"
            )
        return CallRefused(f"the call on {self.address} failed ({code.name.lower()}): {details}")


def _trailing(error: Any) -> dict[str, str]:
    """The trailing metadata; grpc's stubs give its pairs no usable type."""
    return {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
