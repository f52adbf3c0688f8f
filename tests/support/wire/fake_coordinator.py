"""A coordinator that does what a test tells it, on a real socket, in the test's own event loop.

It keeps blobs, takes uploads and remembers everything said to it; rounds, fates and verdicts are the test's. Faults
to come are set as attributes (`break_fetch_after`, `corrupt_chunks`, `break_upload_after`, `hold_uploads`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from processes.ports import free_port
from ssd.digest import CHUNK_BYTES, canonical_json, chunk_digests, digest_bytes, json_digest
from ssd.methods.synthetic.method import create
from ssd.updates.codec import Encoding, VectorCodec
from ssd.updates.declaration import Declaration
from ssd.updates.fold import Fold, FoldPlan
from ssd.updates.spec import model_digest
from ssd.updates.version import next_version
from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import federation_pb2_grpc as rpc
from ssd_proto.v1 import tensor_pb2 as tensor
from ssd_wire.task_digest import task_digest

TIMEOUT = 20.0
RUN_ID = "0123456789abcdef0123456789abcdef"
Accept = Callable[["Upload"], pb.Verdict]


@dataclass
class Upload:
    """One SubmitUpdate call that arrived whole."""

    envelope: pb.Envelope
    body: bytes
    started_at: int

    @property
    def clients(self) -> list[str]:
        return [client.client for client in self.envelope.clients]


@dataclass
class Attended:
    """One control stream."""

    hello: pb.Hello
    session: str
    outbox: asyncio.Queue[pb.CoordinatorMessage | None] = field(default_factory=asyncio.Queue)
    inbox: asyncio.Queue[pb.WorkerMessage] = field(default_factory=asyncio.Queue)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, **kind: Any) -> None:
        self.outbox.put_nowait(pb.CoordinatorMessage(**kind))

    def hang_up(self) -> None:
        self.outbox.put_nowait(None)

    async def receive(self, kind: str) -> Any:
        """The next message of a kind; others before it are skipped."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                message = await self.inbox.get()
                if message.WhichOneof("kind") == kind:
                    return getattr(message, kind)


def accept_all(_: Upload) -> pb.Verdict:
    return pb.Verdict(fate=pb.Verdict.FATE_ACCEPTED)


class FakeCoordinator(rpc.FederationServicer):
    def __init__(self, config: Mapping[str, Any] | None = None, *, run_id: str = RUN_ID) -> None:
        self.run_id = run_id
        self.method = create({"parameters": 4096, **(config or {})})
        self.declaration: Declaration = self.method.declare()
        self.declared_digest = ""
        self.update_encoding, self.delta_encoding = Encoding.FLOAT16, Encoding.FLOAT16
        self.max_cohort, self.max_client_weight, self.max_upload_bytes = 100, 1000, 1 << 40
        self.blobs: dict[str, bytes] = {}
        self.vectors = [self.method.initial(7, None)]
        self.deltas: list[tensor.Delta] = []
        self.welcome_changes: dict[str, Any] = {}
        self.fates: Callable[[pb.HeldUpdate], int] = lambda _: pb.HeldFate.FATE_KEEP
        self.judge: Accept = accept_all
        self.hang_up_with = grpc.StatusCode.UNAVAILABLE
        self.refuse_hello: tuple[grpc.StatusCode, str] | None = None
        self.attending: asyncio.Queue[Attended] = asyncio.Queue()
        self.uploads: asyncio.Queue[Upload] = asyncio.Queue()
        self.heard: list[pb.WorkerMessage] = []
        """Everything that was said on control streams after the hellos."""
        self.fetches: list[tuple[str, int]] = []
        self.partial: dict[bytes, bytearray] = {}
        self.break_fetch_after: int | None = None
        self.corrupt_chunks: dict[str, int] = {}
        """Blob digest -> how many more times its second-to-last chunk arrives damaged."""
        self.stall_fetches_of = ""
        """Blob digest whose fetches from the middle never get anywhere."""
        self.break_upload_after: int | None = None
        self.break_uploads_at: list[int] = []
        """Byte counts at which calls break off, one after the other; what came beyond is lost."""
        self.hold_uploads: asyncio.Event | None = None
        self._sessions: dict[str, Attended] = {}
        self._server: Any = None
        self.port = free_port()
        self.keep_blob(canonical_json(self.declaration.to_json()))

    def use(self, method: Any) -> None:
        """Run rounds of another method than the synthetic one."""
        self.method, self.declaration = method, method.declare()
        self.vectors = [method.initial(7, None)]
        self.keep_blob(canonical_json(self.declaration.to_json()))

    def declare(self, **changes: Any) -> None:
        """Send workers another declaration than the method's own, with digests that are true of it."""
        value = self.declaration.to_json() | changes
        self.announce(canonical_json(value), json_digest(value))

    def announce(self, content: bytes, digest: str) -> None:
        """Send workers these bytes as the declaration, and `digest` as what it and all tasks are known by."""
        self.welcome_changes |= {"declaration": self.keep_blob(content), "declaration_digest": digest}
        self.declared_digest = digest

    async def start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        rpc.add_FederationServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.target)
        await self._server.start()

    async def stop(self) -> None:
        for attended in self._sessions.values():
            attended.hang_up()
        await self._server.stop(0)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def plan(self) -> FoldPlan:
        return FoldPlan.create(
            self.declaration, self.update_encoding, self.max_cohort, self.max_client_weight
        )

    async def attended(self) -> Attended:
        return await asyncio.wait_for(self.attending.get(), TIMEOUT)

    async def uploaded(self) -> Upload:
        return await asyncio.wait_for(self.uploads.get(), TIMEOUT)

    # ------------------------------------------------------------------------------------------ what it offers

    def keep_blob(self, content: bytes) -> tensor.BlobRef:
        digest = digest_bytes(content)
        self.blobs[digest] = content
        return tensor.BlobRef(digest=digest, size=len(content))

    def version(self, number: int | None = None, *, deltas: bool = True) -> tensor.ModelVersion:
        number = len(self.vectors) - 1 if number is None else number
        vector = self.vectors[number]
        return tensor.ModelVersion(
            number=number,
            model_digest=model_digest(self.declaration.spec, vector),
            full=self.keep_blob(vector.astype("<f4").tobytes()),
            deltas=self.deltas[:number] if deltas else [],
        )

    def train(self, clients: Sequence[str], *, attempt: int = 1, **changes: Any) -> pb.Train:
        base = self.version()
        fields = {
            "round": base.number + 1,
            "attempt": attempt,
            "base": base,
            "run_seed": 11,
            "rounds": 10,
            "threads": 1,
            "expected_clients": 10,
            "clients": [pb.ClientTask(client=client) for client in clients],
        }
        task = pb.Train(**(fields | changes))
        if not task.task_digest:
            task.task_digest = self.task_digest(task)
        return task

    def task_digest(self, task: pb.Train) -> str:
        """What is true of the task."""
        return task_digest(
            run_id=self.run_id,
            round_number=task.round,
            rounds=task.rounds,
            base_digest=task.base.model_digest,
            declaration_digest=self.declared_digest or self.declaration.digest,
            run_seed=task.run_seed,
            values=dict(task.values),
            threads=task.threads,
            quality=task.quality,
            expected_clients=task.expected_clients,
            sample_digest=task.sample_digest,
            artefacts={each.name: (each.blob.digest, tuple(each.shape)) for each in task.artefacts},
        )

    def commit(self, uploads: Sequence[Upload]) -> None:
        """Make the next version out of uploads."""
        fold = Fold(self.plan)
        for upload in uploads:
            weight = sum(client.weight for client in upload.envelope.clients)
            if upload.envelope.kind == pb.Envelope.KIND_FOLD:
                fold.add_fold(upload.body, weight, len(upload.clients))
            else:
                fold.add_update(upload.body, weight)
        self.step(fold.open().delta)

    def step(self, delta: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        groups = {
            group.name: self.delta_encoding if group.compress else Encoding.FLOAT32
            for group in self.declaration.groups
        }
        codec = VectorCodec(self.declaration.spec, groups)
        body = bytes(codec.encode(delta))
        self.vectors.append(next_version(self.declaration.spec, self.vectors[-1], codec.decode(body)))
        number = len(self.vectors) - 1
        digest = model_digest(self.declaration.spec, self.vectors[-1])
        self.deltas.append(tensor.Delta(number=number, blob=self.keep_blob(body), model_digest=digest))

    def committed(self, included: Sequence[str]) -> pb.Committed:
        number = len(self.vectors) - 1
        return pb.Committed(round=number, version=self.version(), included=included)

    # ------------------------------------------------------------------------------------------------- service

    async def Attend(self, _requests: Any, context: Any) -> None:  # noqa: N802
        first = await context.read()
        if self.refuse_hello is not None:
            code, reason = self.refuse_hello
            await context.abort(code, f"refused: {reason}", trailing_metadata=(("ssd-reason", reason),))
        hello = first.hello
        attended = Attended(hello, f"{len(self._sessions):032x}")
        self._sessions[attended.session] = attended
        fields = {
            "protocol": 1,
            "session": attended.session,
            "run_id": self.run_id,
            "declaration": self.keep_blob(canonical_json(self.declaration.to_json())),
            "declaration_digest": self.declaration.digest,
            "held_fates": [pb.HeldFate(fate=self.fates(held)) for held in hello.held_updates],
            "heartbeat_seconds": 0.2,
            "update_encoding": self.update_encoding.value,
            "delta_encoding": self.delta_encoding.value,
            "max_cohort": self.max_cohort,
            "max_client_weight": self.max_client_weight,
            "max_upload_bytes": self.max_upload_bytes,
            "version": self.version(),
        }
        attended.send(welcome=pb.Welcome(**(fields | self.welcome_changes)))
        self.attending.put_nowait(attended)
        reader = asyncio.ensure_future(self._read(attended, context))
        try:
            while (message := await attended.outbox.get()) is not None:
                await context.write(message)
        finally:
            reader.cancel()
            del self._sessions[attended.session]
            attended.ended.set()
        await context.abort(self.hang_up_with, "hung up")

    async def _read(self, attended: Attended, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            self.heard.append(message)
            attended.inbox.put_nowait(message)
        attended.hang_up()

    async def FetchBlob(self, request: Any, context: Any) -> None:  # noqa: N802
        await self._check_session(context)
        content = self.blobs.get(request.digest)
        self.fetches.append((request.digest, request.offset))
        if content is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, "unknown", trailing_metadata=(("ssd-reason", "unknown_blob"),)
            )
        assert content is not None
        if request.digest == self.stall_fetches_of and request.offset:
            await asyncio.sleep(TIMEOUT)
        await context.write(pb.BlobPart(chunk_digests=b"".join(chunk_digests(content)), size=len(content)))
        last = max(0, (len(content) - 1) // CHUNK_BYTES - 1) * CHUNK_BYTES
        for offset in range(request.offset, len(content), CHUNK_BYTES):
            if self.break_fetch_after is not None and offset >= self.break_fetch_after:
                self.break_fetch_after = None
                await context.abort(grpc.StatusCode.UNAVAILABLE, "broken on purpose")
            data = content[offset : offset + CHUNK_BYTES]
            if offset == last and self.corrupt_chunks.get(request.digest, 0) > 0:
                self.corrupt_chunks[request.digest] -= 1
                data = bytes([data[0] ^ 1]) + data[1:]
            await context.write(pb.BlobPart(offset=offset, data=data))

    async def SubmitUpdate(self, _requests: Any, context: Any) -> None:  # noqa: N802
        await self._check_session(context)
        envelope = (await context.read()).envelope
        body = self.partial.setdefault(envelope.SerializeToString(deterministic=True), bytearray())
        started_at = len(body)
        await context.write(pb.UploadReply(proceed=pb.Continue(offset=len(body))))
        if self.hold_uploads is not None:
            await context.write(pb.UploadReply(hold=pb.Hold(reason="test")))
            await self.hold_uploads.wait()
            await context.write(pb.UploadReply(go=pb.Go()))
        while len(body) < envelope.body_size:
            part = await context.read()
            if part is grpc.aio.EOF:
                await context.abort(
                    grpc.StatusCode.DATA_LOSS, "cut", trailing_metadata=(("ssd-reason", "truncated"),)
                )
            assert part.chunk.offset == len(body)
            body += part.chunk.data
            if self.break_uploads_at and len(body) >= self.break_uploads_at[0]:
                del body[self.break_uploads_at.pop(0) :]
                await context.abort(grpc.StatusCode.UNAVAILABLE, "broken on purpose")
            if self.break_upload_after is not None and len(body) >= self.break_upload_after:
                self.break_upload_after = None
                await context.abort(grpc.StatusCode.UNAVAILABLE, "broken on purpose")
        assert b"".join(chunk_digests(bytes(body))) == envelope.chunk_digests
        upload = Upload(envelope, bytes(body), started_at)
        verdict = self.judge(upload)
        await context.write(pb.UploadReply(verdict=verdict))
        self.uploads.put_nowait(upload)
        if verdict.fate == pb.Verdict.FATE_REJECTED:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                verdict.detail,
                trailing_metadata=(("ssd-reason", verdict.reason),),
            )

    async def _check_session(self, context: Any) -> None:
        tokens = [value for key, value in context.invocation_metadata() if key == "ssd-session"]
        if len(tokens) != 1 or tokens[0] not in self._sessions:
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED,
                "no session",
                trailing_metadata=(("ssd-reason", "no_session"),),
            )
