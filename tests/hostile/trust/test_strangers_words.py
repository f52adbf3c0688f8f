"""An operator asks a coordinator that answers with sequences a terminal obeys. Every verb runs on a terminal of its own."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from coordinator.ports.records import AttemptRecord, RunRecord, VersionRecord
from coordinator.store.journal.sqlite import SqliteJournal
from processes.federation import ROOT
from processes.terminal import Terminal
from ssd_proto.v1 import operator_pb2 as pb
from ssd_proto.v1 import tensor_pb2
from ssd_proto.v1.operator_pb2_grpc import OperatorServicer, add_OperatorServicer_to_server
from ssd_wire.messages import BlobRef

EVIL = "\x1b]0;owned\x07\x1b[2J\x1b[8m\x9b2J\x9d0;owned\x9c\x7f\r\n\u202e\u2066\u2028\u0085\x00 evil"
_OURS = re.compile(r"\x1b\[(?:0|1|2|3[0-7]|1;3[0-7]|2;3[0-7]|1;2|1;31)?m")
"""Colours that our own programs use; `8` (hidden) is none of them."""


class Hostile(OperatorServicer):
    """Says EVIL wherever text can be said."""

    def Status(self, request: Any, context: Any) -> pb.StatusReply:  # noqa: N802
        worker = pb.WorkerStatus(worker=EVIL, clients=4, evaluates=True, device=EVIL, last_seen_seconds=0.5)
        return pb.StatusReply(
            run_id=EVIL, method=EVIL, mode=EVIL, phase=EVIL, waiting_for=EVIL, round=3, attempt=1, rounds=9, build=EVIL,
            version=tensor_pb2.ModelVersion(number=2, model_digest=EVIL), cohort={EVIL: 4}, workers=[worker],
            evaluation={EVIL: 0.5}, evaluated_version=2, statistics={EVIL: math.nan, "loss": 1.0}, privacy=EVIL,
        )  # fmt: skip

    def Watch(self, request: Any, context: Any) -> Iterator[pb.StatusReply]:  # noqa: N802
        yield self.Status(request, context)

    def Rounds(self, request: Any, context: Any) -> pb.RoundsReply:  # noqa: N802
        return pb.RoundsReply(
            rounds=[
                pb.RoundRecord(round=2, attempt=2, outcome=EVIL, reason=EVIL, statistics={EVIL: 1.0}, accepted_clients=[EVIL]),
                pb.RoundRecord(round=1, attempt=1, outcome="committed", model_digest=EVIL, statistics={EVIL: 1.0}),
            ]
        )  # fmt: skip

    def Evaluations(self, request: Any, context: Any) -> pb.EvaluationsReply:  # noqa: N802
        return pb.EvaluationsReply(evaluations=[pb.EvaluationRecord(version=1, values={EVIL: 0.5})])

    def Clients(self, request: Any, context: Any) -> pb.ClientsReply:  # noqa: N802
        return pb.ClientsReply(clients=[pb.ClientRecord(client=EVIL, worker=EVIL, belongs_to=EVIL)])

    def MoveClient(self, request: Any, context: Any) -> pb.MoveClientReply:  # noqa: N802
        return pb.MoveClientReply(before=EVIL)

    def Version(self, request: Any, context: Any) -> pb.VersionReply:  # noqa: N802
        return pb.VersionReply(
            version=tensor_pb2.ModelVersion(number=2, model_digest=EVIL),
            declaration=json.dumps({"method": EVIL, EVIL: EVIL}).encode(),
        )

    def _refuse(self, request: Any, context: Any) -> Any:
        # A status message has to be what HTTP/2 can carry; gRPC encodes the rest.
        context.set_trailing_metadata((("ssd-reason", "not_found"),))
        context.abort(grpc.StatusCode.NOT_FOUND, EVIL)

    Pause = Resume = Drain = Revoke = _refuse


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    serving = grpc.server(futures.ThreadPoolExecutor(4))
    add_OperatorServicer_to_server(Hostile(), serving)
    port = serving.add_insecure_port("127.0.0.1:0")
    serving.start()
    yield f"127.0.0.1:{port}"
    serving.stop(0).wait()


VERBS = {
    "status": ["status"],
    "status, followed": ["status", "--watch"],
    "watch": ["watch", "--once"],
    "rounds": ["rounds"],
    "evaluations": ["evaluations"],
    "clients": ["clients"],
    "move": ["clients", "move", "a", "--to", "w"],
    "pause": ["pause"],
    "resume": ["resume"],
    "drain": ["drain"],
    "revoke": ["revoke", "a"],
    "revoke a worker": ["revoke", "--worker", "w"],
    "export": ["export", "--out", "e.safetensors"],
    "track": ["track", "--tensorboard", "curves"],
}


@pytest.mark.parametrize("form", ["human", "json"])
def test_nor_does_what_a_journal_keeps_of_them(tmp_path: Path, form: str) -> None:
    """`explain` reads a state directory, in which an earlier version may have kept anything."""
    blob = BlobRef(digest="ab" * 32, size=1)
    store = SqliteJournal(tmp_path)
    run = RunRecord(
        run_id="r", created_at=1.0, config={}, declaration={}, declaration_blob=blob, declaration_digest=""
    )
    store.create_run(run, VersionRecord(number=0, model_digest="m", full=blob, delta=None))
    store.register_clients(("a",), 1.0)
    attempt = AttemptRecord(
        round=1, attempt=1, base_version=0, base_digest="m", cohort=("a",), opened_at=1.0, outcome="open"
    )
    store.open_attempt(attempt)
    notes = [[1.5, "asked", "", EVIL], [2.0, "failed", EVIL, EVIL]]
    store.keep_client_history(1, 1, {"a": {"notes": notes, "dropped": 0}})
    store.abandon_attempt(1, 1, EVIL, 3.0)
    store.close()
    command = [
        sys.executable,
        "-m",
        "coordinator",
        "explain",
        "1",
        "--state-dir",
        str(tmp_path),
        "--format",
        form,
    ]
    shown_harmless(command)


@pytest.mark.parametrize("form", ["human", "json"])
@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_lets_a_strangers_words_command_the_terminal(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, form: str
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "coordinator", *VERBS[verb], "--address", address, "--insecure"]
    if VERBS[verb][0] != "watch":
        command += ["--format", form]
    begins_anew = verb == "status, followed" and form == "human"
    shown_harmless(command, "\x1b[2J\x1b[1;1H" if begins_anew else "")


def shown_harmless(command: list[str], first: str = "") -> None:
    """Run it on a terminal, and search what arrives there; `first` is our own way to begin."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "proto")])
    environment = {**os.environ, "PYTHONPATH": paths, "GRPC_VERBOSITY": "NONE"}
    with Terminal(command, environment, columns=200) as terminal:
        terminal.ended()
        drawn = terminal.drawn
    assert drawn.startswith(first)
    left = _OURS.sub("", drawn.removeprefix(first)).replace("\r\n", "\n")
    assert all(line.isprintable() for line in left.split("\n")), repr(left)
    assert "Traceback" not in left
    assert "evil" in left or "error" in left or "curves" in left, left
