"""A coordinator for the fuzzer, with everybody it may be called by, and what has to come of a call."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from coordinator.config.sections import LimitsSection
from coordinator.ports.trust import Holder, TokenRecord
from coordinator.rpc.enrolment import MAX_MESSAGE_BYTES
from coordinator.rpc.serving.limits import HARD_LIMIT_FACTOR
from coordinator.store.trust import SqliteTrust
from processes.federation import free_port
from processes.pki import open_channel
from ssd.trust.authority import new_key
from ssd.trust.join_token import new_secret, secret_digest
from ssd.trust.names import Role
from ssd.trust.private_files import create_private
from ssd.trust.requests import make_request
from ssd_proto.v1 import enrolment_pb2 as enrolment_pb
from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import operator_pb2 as operator_pb
from wire.fuzzing import METHODS, WORKERS, Input
from wire.hostile import Site
from wire.wire_calls import OPERATOR, as_bytes, operator_status

HANG_SECONDS = 60.0
ENDLESS = ("Operator/Watch", "Health/Watch")
"""They go on for ever: one answer is enough."""
ROLES = {"operator": Role.OPERATOR, "observer": Role.OBSERVER}
Code = grpc.StatusCode
TURNED_AWAY = (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED)
"""By gRPC itself, before any handler: so many calls at once on the enrolment port, so old a connection."""


def largest(each: Input) -> int:
    """Bytes of the largest message gRPC itself lets through where this call goes."""
    if each.caller == "stranger":
        return 2 * MAX_MESSAGE_BYTES
    return HARD_LIMIT_FACTOR * LimitsSection().max_message_bytes


def everybody(*_: object) -> Anyone:
    """In place of `coordinator.runtime.rate_limit.Admission`: a fuzzer asks too often on purpose, and wants to be heard."""
    return Anyone()


class Anyone:
    """Lets everybody go on."""

    def admit(self, host: str, now: float) -> bool:
        """Yes."""
        return True


class FuzzSite(Site):
    """A round that stays open under TLS, with an enrolment port, and channels as everybody."""

    def __init__(self, root: Path) -> None:
        self.enrolment_port = free_port()
        super().__init__(
            root,
            insecure=False,
            fault=["swap:coordinator.rpc.enrolment:AdmissionLimit=wire.fuzz_firing:everybody"],
            **{
                "limits.uploads_per_worker": 64,
                "enrolment.listen": f"127.0.0.1:{self.enrolment_port}",
            },
        )
        self._channels: dict[str, grpc.Channel] = {}

    def __enter__(self) -> Self:
        pki = self.federation.pki
        assert pki is not None
        create_private(pki.folder / "ca.key", pki._authority.key)
        super().__enter__()
        for name in (*WORKERS, *ROLES):
            role = ROLES.get(name, Role.WORKER)
            self._channels[name] = open_channel(self.address, pki, role, name)
        self._channels["alpha"] = self.alpha.channel
        credentials = grpc.ssl_channel_credentials(pki.authority)
        self._channels["stranger"] = grpc.secure_channel(f"127.0.0.1:{self.enrolment_port}", credentials)
        return self

    def __exit__(self, *_: object) -> None:
        for channel in self._channels.values():
            channel.close()
        super().__exit__()

    def token(self) -> bytes:
        """The secret of a join token for a worker that hosts nobody."""
        secret, now = new_secret(), time.time()
        trust = SqliteTrust(self.federation.state_dir)
        holder = Holder(Role.WORKER, "fuzz-joined")
        trust.add_token(
            TokenRecord(
                digest=secret_digest(secret),
                holder=holder,
                clients=(),
                created_at=now,
                expires_at=now + 86400,
            )
        )
        trust.close()
        return secret

    def fire(self, inputs: Iterable[Input]) -> dict[str, int]:
        """All at once; every call ends in time with a status somebody chose, and the round is still open.

        Returns how many calls of each method came to its handler.

        Raises:
            AssertionError: naming the input.
        """
        calls = [(each, self._begin(each)) for each in inputs]
        reached: dict[str, int] = {}
        for each, call in calls:
            self._judge(each, call)
            reached[each.call] = reached.get(each.call, 0) + 1
        operator = self._channels["operator"]
        if any(each.call == "Operator/Pause" for each, _ in calls):
            operator.unary_unary(f"{OPERATOR}/Resume", as_bytes)(
                operator_pb.ResumeRequest(), timeout=HANG_SECONDS
            )
        assert operator_status(operator).phase == "training"
        return reached

    def _begin(self, each: Input) -> Any:
        method, channel = METHODS[each.call], self._channels[each.caller]
        kind = channel.stream_stream if method.streams else channel.unary_stream
        request: Any = iter(each.messages) if method.streams else each.messages[0]
        metadata = self.alpha.metadata() if each.caller == "alpha" else None
        return kind(method.path, as_bytes, bytes)(request, metadata=metadata, timeout=HANG_SECONDS)

    def _judge(self, each: Input, call: Any, tries: int = 5) -> None:
        answered = False
        with contextlib.suppress(grpc.RpcError):
            for _ in call:
                answered = True
                if each.call in ENDLESS:
                    call.cancel()
        code, reason = call.code(), dict(call.trailing_metadata() or ()).get("ssd-reason")
        what = (each.to_json()[:2000], code, reason, call.details())
        if each.caller == "stranger" and not reason and code in TURNED_AWAY and tries:
            return self._judge(each, self._begin(each), tries - 1)
        if each.call in ENDLESS and answered:
            assert code is Code.CANCELLED, what
            return None
        # UNKNOWN is what an exception in a handler becomes, and a hang ends with the deadline.
        assert code not in (Code.UNKNOWN, Code.INTERNAL), what
        if not reason and any(len(message) > largest(each) for message in each.messages):
            assert code is Code.RESOURCE_EXHAUSTED, what
        elif METHODS[each.call].ours:
            assert (code is Code.OK) != bool(reason), what
            assert reason not in ("role", "no_identity", "tls_version", "too_often"), what
        else:
            assert code not in (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE, Code.PERMISSION_DENIED), what
        return None


def recorded(site: FuzzSite) -> list[Input]:
    """Traffic of an honest worker and operator, with a statistic that is NaN: none of its updates may get in."""
    plan, task = site.alpha.plan, site.task
    assert plan is not None
    client = site.cohort[0]
    spoilt = bytearray(site.honest[client][0])
    spoilt[plan.codec.nbytes : plan.codec.nbytes + 8] = struct.pack("<d", float("nan"))
    hello = pb.Hello(protocol_min=1, protocol_max=1, worker=WORKERS[0], instance="a" * 32, build="x")
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
    revoked = operator_pb.Identity(role="worker", name="x")
    request, secret = make_request(new_key()), site.token()
    joining = enrolment_pb.EnrollRequest(
        secret=secret, subject="ssd://test/worker/fuzz-joined", request=request
    )
    reflected = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="ssd_proto.v1.Operator"),
    ]
    operator: list[tuple[str, Message]] = [
        ("Download", operator_pb.DownloadRequest(digest=task.base.full.digest)),
        ("Version", operator_pb.VersionRequest(number=1)),
        ("Rounds", operator_pb.RoundsRequest(limit=3)),
        ("Revoke", operator_pb.RevokeRequest(identity=revoked)),
        ("MoveClient", operator_pb.MoveClientRequest(client=client, worker="alpha")),
    ]
    calls: list[tuple[str, str, Sequence[Message]]] = [
        *(("Federation/Attend", WORKERS[0], parts) for parts in attends),
        (
            "Federation/SubmitUpdate",
            "alpha",
            [pb.UploadPart(envelope=site.envelope(client, bytes(spoilt))), _chunk(spoilt)],
        ),
        ("Federation/SubmitUpdate", "alpha", [pb.UploadPart(envelope=fold), _chunk(spoilt)]),
        ("Federation/FetchBlob", "alpha", [pb.FetchBlobRequest(digest=task.base.full.digest)]),
        *((f"Operator/{name}", "operator", [message]) for name, message in operator),
        ("Enrolment/Enroll", "stranger", [joining]),
        ("Renewal/Renew", WORKERS[1], [enrolment_pb.RenewRequest(request=request)]),
        ("Health/Check", "observer", [health_pb2.HealthCheckRequest(service="ssd_proto.v1.Operator")]),
        ("ServerReflection/ServerReflectionInfo", "observer", reflected),
    ]
    return [
        Input(call, tuple(part.SerializeToString() for part in parts), caller)
        for call, caller, parts in calls
    ]


def _chunk(body: bytes) -> pb.UploadPart:
    return pb.UploadPart(chunk=pb.Chunk(offset=0, data=bytes(body)))
