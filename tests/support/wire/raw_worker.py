"""A worker made by hand over real gRPC: well-behaved unless a test tells it not to be."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc

from processes.pki import Pki, open_channel
from ssd.digest import CHUNK_BYTES, chunk_digests
from ssd.method.protocol import ClientTask
from ssd.method.registry import load
from ssd.scaling import ScalingVector
from ssd.trust.names import Role
from ssd.updates.codec import Encoding
from ssd.updates.declaration import Declaration
from ssd.updates.fold import Fold, FoldPlan, encode_update
from ssd.updates.version import next_version  # noqa: F401 - part of what a worker needs; kept for tests that fetch chains
from ssd_proto.v1 import federation_pb2 as pb

SERVICE = "/ssd_proto.v1.Federation"
PATIENCE = 60.0


class RawWorker:
    """One Attend stream and any number of data calls."""

    def __init__(
        self,
        address: str,
        name: str,
        clients: Sequence[str],
        *,
        instance: str = "0" * 32,
        pki: Pki | None = None,
        role: Role = Role.WORKER,
    ) -> None:
        self.name = name
        self.clients = list(clients)
        self.instance = instance
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self.channel = open_channel(address, pki, role, name, options)
        self.up: queue.Queue[Any] = queue.Queue()
        self.down: queue.Queue[Any] = queue.Queue()
        self.session = ""
        self.welcome: pb.Welcome | None = None
        self.declaration: Declaration | None = None
        self.plan: FoldPlan | None = None
        self.status: grpc.RpcError | None = None
        self.beats = True
        self.states: dict[str, Mapping[str, Any]] = {}

    def __enter__(self) -> RawWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.beats = False
        self.up.put(None)
        self.channel.close()

    # ------------------------------------------------------------------------------------------ attending

    def hello(self, **changes: Any) -> pb.Hello:
        fields: dict[str, Any] = {
            "protocol_min": 1,
            "protocol_max": 1,
            "build": "raw",
            "worker": self.name,
            "instance": self.instance,
            "clients": [pb.HostedClient(client=client) for client in self.clients],
        }
        return pb.Hello(**{**fields, **changes})

    def attend(self, first: Any = None, **hello: Any) -> RawWorker:
        """Open the stream and wait for the welcome (or the refusal, then in `status`)."""
        self.open_stream(first if first is not None else pb.WorkerMessage(hello=self.hello(**hello)))
        message = self.next()
        if message is not None:
            assert message.WhichOneof("kind") == "welcome", message
            self.welcome = message.welcome
            self.session = message.welcome.session
            threading.Thread(target=self._beat, daemon=True).start()
        return self

    def _beat(self) -> None:
        assert self.welcome is not None
        while self.beats:
            self.up.put(pb.WorkerMessage(heartbeat=pb.Heartbeat()))
            time.sleep(self.welcome.heartbeat_seconds / 2)

    def open_stream(self, first: Any) -> None:
        self.up.put(first)
        call = self.channel.stream_stream(
            f"{SERVICE}/Attend",
            lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            pb.CoordinatorMessage.FromString,
        )(iter(self.up.get, None))

        def read() -> None:
            try:
                for message in call:
                    self.down.put(message)
            except grpc.RpcError as error:
                self.status = error
            self.down.put(None)

        threading.Thread(target=read, daemon=True).start()

    def next(self, patience: float = PATIENCE) -> Any:
        return self.down.get(timeout=patience)

    def expect(self, kind: str, patience: float = PATIENCE) -> Any:
        """The next message of this kind; others are passed over."""
        while True:
            message = self.next(patience)
            assert message is not None, f"the stream ended instead of {kind}: {self.status}"
            if message.WhichOneof("kind") == kind:
                return getattr(message, kind)

    # ---------------------------------------------------------------------------------------- data calls

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("ssd-session", self.session),)

    def fetch(self, digest: str, offset: int = 0, metadata: Any = None) -> bytes:
        call = self.channel.unary_stream(
            f"{SERVICE}/FetchBlob", pb.FetchBlobRequest.SerializeToString, pb.BlobPart.FromString
        )
        parts = call(
            pb.FetchBlobRequest(digest=digest, offset=offset),
            metadata=self.metadata() if metadata is None else metadata,
            timeout=PATIENCE,
        )
        return b"".join(part.data for part in parts)

    def learn(self) -> RawWorker:
        """Fetch the declaration and plan the sums."""
        import json

        assert self.welcome is not None
        self.declaration = Declaration.from_json(json.loads(self.fetch(self.welcome.declaration.digest)))
        self.plan = FoldPlan.create(
            self.declaration,
            Encoding(self.welcome.update_encoding),
            self.welcome.max_cohort,
            self.welcome.max_client_weight,
        )
        return self

    def train(self, task: pb.Train, client: str) -> tuple[bytes, int]:
        """The honest update of one client: (body, weight)."""
        import numpy as np

        assert self.declaration is not None
        assert self.plan is not None
        method = load(self.declaration.method, dict(self.declaration.config))
        base = np.frombuffer(self.fetch(task.base.full.digest), "<f4")
        (mine,) = [each for each in task.clients if each.client == client]
        scaling = None
        if mine.HasField("scaling"):
            scaling = ScalingVector(mine.scaling.dimension, tuple(mine.scaling.indices), mine.scaling.alpha)
        result = method.train(
            ClientTask(
                run_seed=task.run_seed,
                round=task.round,
                rounds=task.rounds,
                client_id=client,
                base=base,
                values=dict(task.values),
                scaling=scaling,
                state=self.states.get(client, {}),
            ),
            None,
            lambda *_: None,
        )
        self.states[client] = result.state
        return encode_update(self.plan, result.delta, result.statistics), result.weight

    def fold(self, updates: Sequence[tuple[bytes, int]]) -> bytes:
        assert self.plan is not None
        total = Fold(self.plan)
        for body, weight in updates:
            total.add_update(body, weight)
        return total.pack()

    def envelope(
        self, task: pb.Train, clients: Mapping[str, int], body: bytes, *, fold: bool = False, **changes: Any
    ) -> pb.Envelope:
        assert self.welcome is not None
        assert self.declaration is not None
        fields: dict[str, Any] = {
            "run_id": self.welcome.run_id,
            "round": task.round,
            "attempt": task.attempt,
            "base_digest": task.base.model_digest,
            "spec_digest": self.declaration.spec.digest,
            "task_digest": task.task_digest,
            "kind": pb.Envelope.KIND_FOLD if fold else pb.Envelope.KIND_UPDATE,
            "clients": [pb.WeightedClient(client=c, weight=w) for c, w in clients.items()],
            "body_size": len(body),
            "chunk_digests": b"".join(chunk_digests(body)),
        }
        return pb.Envelope(**{**fields, **changes})

    def submit(
        self, envelope: Any, body: bytes, *, stop_at: int | None = None, metadata: Any = None
    ) -> tuple[pb.Verdict | None, grpc.StatusCode, str]:
        """Send an upload; (verdict, status code, reason)."""
        go = threading.Event()
        offset = [0]
        ended = threading.Event()

        def parts() -> Iterator[Any]:
            yield pb.UploadPart(envelope=envelope) if isinstance(envelope, pb.Envelope) else envelope
            while not go.wait(0.05):
                if ended.is_set():
                    return
            position = offset[0]
            end = len(body) if stop_at is None else stop_at
            while position < end:
                size = min(CHUNK_BYTES - position % CHUNK_BYTES, end - position)
                yield pb.UploadPart(
                    chunk=pb.Chunk(offset=position, data=bytes(body[position : position + size]))
                )
                position += size

        call = self.channel.stream_stream(
            f"{SERVICE}/SubmitUpdate",
            lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            pb.UploadReply.FromString,
        )(parts(), metadata=self.metadata() if metadata is None else metadata, timeout=PATIENCE)
        verdict = None
        try:
            for reply in call:
                kind = reply.WhichOneof("kind")
                if kind == "proceed":
                    offset[0] = reply.proceed.offset
                    go.set()
                elif kind == "verdict":
                    verdict = reply.verdict
        except grpc.RpcError:
            pass
        ended.set()
        trailing = dict(call.trailing_metadata() or ())
        return verdict, call.code(), str(trailing.get("ssd-reason", ""))

    def contribute(self, task: pb.Train) -> None:
        """Train every client of the task and upload it honestly, one by one."""
        for each in task.clients:
            body, weight = self.train(task, each.client)
            verdict, code, reason = self.submit(self.envelope(task, {each.client: weight}, body), body)
            assert verdict is not None, (code, reason)
            assert verdict.fate == pb.Verdict.FATE_ACCEPTED, (verdict, code, reason)
