"""An operator's service whose answers are written down: a coordinator in round 3."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np

from ssd.digest import CHUNK_BYTES, digest_bytes
from ssd.method.registry import load as load_method
from ssd.updates.spec import model_digest
from ssd_proto.v1 import operator_pb2 as pb
from ssd_proto.v1 import tensor_pb2
from ssd_proto.v1.operator_pb2_grpc import OperatorServicer

DECLARATION = load_method("synthetic", {}).declare()


VECTOR = np.linspace(-1, 1, DECLARATION.spec.size, dtype=np.float32)


class ScriptedOperator(OperatorServicer):
    """Answers like a coordinator in round 3; notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.blob = VECTOR.tobytes()
        self.model_digest = model_digest(DECLARATION.spec, VECTOR)
        self.declaration = json.dumps(DECLARATION.to_json()).encode()

    def Status(self, request: Any, context: Any) -> pb.StatusReply:  # noqa: N802  # the RPC's name
        return pb.StatusReply(
            run_id="run-1",
            method="synthetic",
            mode="elastic",
            phase="waiting",
            waiting_for="2 more clients",
            version=tensor_pb2.ModelVersion(number=2, model_digest="ab" * 32),
            round=3,
            attempt=1,
            rounds=10,
            cohort={"invited": 4, "accepted": 1, "failed": 0},
            workers=[
                pb.WorkerStatus(worker="w1", clients=4, evaluates=True, device="cpu", last_seen_seconds=0.5)
            ],
            registered_clients=6,
            connected_clients=4,
            evaluation={"knn": 0.5},
            evaluated_version=2,
            statistics={"loss": math.nan},
            build="test/1",
            uptime_seconds=12.0,
            privacy="epsilon 2 at delta 1e-05 after 2 rounds",
        )

    def Watch(self, request: Any, context: Any) -> Iterator[pb.StatusReply]:  # noqa: N802  # the RPC's name
        for _ in range(2):
            yield self.Status(request, context)

    def Rounds(self, request: Any, context: Any) -> pb.RoundsReply:  # noqa: N802  # the RPC's name
        self.told.append(f"rounds {request.limit}")
        return pb.RoundsReply(
            rounds=[
                pb.RoundRecord(round=3, attempt=1, outcome="open", cohort_size=4),
                pb.RoundRecord(round=2, attempt=2, outcome="committed", cohort_size=4, accepted=3, seconds=90.0,
                               model_digest="cd" * 32, statistics={"loss": 1.25}, bytes_up=5 << 20,
                               accepted_clients=["a", "b", "c"]),
                pb.RoundRecord(round=2, attempt=1, outcome="abandoned", reason="deadline", cohort_size=4),
            ]
        )  # fmt: skip

    def Evaluations(self, request: Any, context: Any) -> pb.EvaluationsReply:  # noqa: N802  # the RPC's name
        records = [(0, {"knn": 0.25}), (2, {"knn": 0.5, "rank": 7.0})]
        return pb.EvaluationsReply(
            evaluations=[pb.EvaluationRecord(version=version, values=values) for version, values in records]
        )

    def Clients(self, request: Any, context: Any) -> pb.ClientsReply:  # noqa: N802  # the RPC's name
        return pb.ClientsReply(
            clients=[
                pb.ClientRecord(client="a", index=0, worker="w1", last_committed_round=2, rounds_included=2,
                                scaled_dimensions=range(9), alpha=10.0),
                pb.ClientRecord(client="b", index=-1, revoked=True),
            ]
        )  # fmt: skip

    def Pause(self, request: Any, context: Any) -> pb.PauseReply:  # noqa: N802  # the RPC's name
        self.told.append("pause")
        return pb.PauseReply()

    def Resume(self, request: Any, context: Any) -> pb.ResumeReply:  # noqa: N802  # the RPC's name
        self.told.append("resume")
        return pb.ResumeReply()

    def Drain(self, request: Any, context: Any) -> pb.DrainReply:  # noqa: N802  # the RPC's name
        self.told.append("drain")
        return pb.DrainReply()

    def Revoke(self, request: Any, context: Any) -> pb.RevokeReply:  # noqa: N802  # the RPC's name
        if request.WhichOneof("what") == "identity":
            self.told.append(f"revoke {request.identity.role} {request.identity.name}")
            return pb.RevokeReply(connected=request.identity.name == "w1")
        if request.client != "a":
            context.set_trailing_metadata((("ssd-reason", "not_found"),))
            context.abort(grpc.StatusCode.NOT_FOUND, f"no client is called {request.client}")
        self.told.append("revoke a")
        return pb.RevokeReply()

    def MoveClient(self, request: Any, context: Any) -> pb.MoveClientReply:  # noqa: N802  # the RPC's name
        self.told.append(f"move {request.client} {request.worker}")
        return pb.MoveClientReply(before="w1" if request.client == "a" else "")

    def Version(self, request: Any, context: Any) -> pb.VersionReply:  # noqa: N802  # the RPC's name
        self.told.append("version newest" if request.newest else f"version {request.number}")
        return pb.VersionReply(
            version=tensor_pb2.ModelVersion(
                number=2 if request.newest else request.number,
                model_digest=self.model_digest,
                full=tensor_pb2.BlobRef(digest=digest_bytes(VECTOR.tobytes()), size=VECTOR.nbytes),
            ),
            declaration=self.declaration,
            provenance=pb.Provenance(
                parent_digest="cd" * 32,
                mode="elastic",
                rounds=10,
                registered_clients=6,
                included_clients=3,
                total_weight=420,
                statistics={"weight": 210.0, "loss": math.nan},
                evaluation={"knn": 0.5},
                secure_aggregation="passive",
                privacy="epsilon 2 at delta 1e-05 after 2 rounds",
                build="test/1",
            ),
        )

    def Download(self, request: Any, context: Any) -> Iterator[pb.DownloadPart]:  # noqa: N802  # the RPC's name
        for start in range(0, len(self.blob), CHUNK_BYTES):
            data = self.blob[start : start + CHUNK_BYTES]
            yield pb.DownloadPart(size=len(self.blob), offset=start, data=data)


Run = Callable[..., tuple[int, str, str]]
