"""Certificates that are good, and not good for this: every role at every method, other people's clients, the revoked.

Over real TLS. Which methods there are, the coordinator itself is asked.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from coordinator.rpc.interceptors.auth import TABLE, allowed, call_name
from ssd.daemon.log_repetition import FEW
from ssd.trust.names import Role
from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import operator_pb2 as operator_pb
from wire.hostile import CLIENTS, Site
from wire.raw_worker import RawWorker
from wire.wire_calls import FEDERATION, OPERATOR, Outcome, as_bytes, ask, outcome_of, reflected, stream

pytestmark = pytest.mark.e2e
Code = grpc.StatusCode
CALLERS = [role for role in Role if role is not Role.COORDINATOR]
# The health service has List only in newer versions of its package; the table has a row for those.
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
METHODS = sorted(
    set(TABLE) - (set() if "List" in _HEALTH.methods_by_name else {f"/{_HEALTH.full_name}/List"})
)
"""TLS lets no server's certificate call at all: see the tests of TLS."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("roles"), insecure=False) as site:
        yield site


def test_every_method_there_is_has_a_row_and_every_row_a_method(site: Site) -> None:
    with site.federation.channel() as channel:
        assert reflected(channel) == set(METHODS)


def harmless(channel: grpc.Channel, method: str) -> Outcome:
    """A call that changes nothing: no handler of ours accepts such a message, and those of libraries only read."""
    over = threading.Event()

    def up() -> Iterator[bytes]:
        yield b"\xff\xff\xff" if method.startswith("/ssd_proto") else b""
        over.wait(5)

    call = channel.stream_stream(method, lambda message: message, lambda message: message)(up(), timeout=5)
    replies: list[Any] = []
    with contextlib.suppress(grpc.RpcError):
        for reply in call:
            # Reached; some go on for as long as they are listened to.
            replies.append(reply)
            call.cancel()
    over.set()
    return outcome_of(call, replies)


@pytest.mark.parametrize("role", CALLERS)
@pytest.mark.parametrize("method", METHODS)
def test_each_cell_of_the_table_over_tls(site: Site, role: Role, method: str) -> None:
    with site.federation.channel(role, "somebody") as channel:
        if allowed(method, role):
            outcome = harmless(channel, method)
            # Whatever the handler says to such a message: it was reached.
            assert outcome.reason not in ("role", "revoked", "identity_mismatch"), outcome
            assert outcome.code is not Code.UNAUTHENTICATED or outcome.reason == "no_session", outcome
        else:
            # A unary request is parsed before anybody is asked, so it must be one; the empty message always is.
            call = channel.unary_stream(method, lambda message: message, lambda message: message)(
                b"", timeout=20
            )
            with pytest.raises(grpc.RpcError):
                list(call)
            outcome = outcome_of(call, [])
            assert (outcome.code, outcome.reason) == (Code.PERMISSION_DENIED, "role"), outcome
            assert call_name(method) in outcome.detail


def hello(worker: str, *clients: str) -> pb.WorkerMessage:
    hosted = [pb.HostedClient(client=client) for client in clients]
    fields = {"protocol_min": 1, "protocol_max": 1, "instance": "a" * 32, "build": "x", "clients": hosted}
    return pb.WorkerMessage(hello=pb.Hello(worker=worker, **fields))


def attending(site: Site, name: str, *clients: str, role: Role = Role.WORKER, said: str = "") -> Outcome:
    with site.federation.channel(role, name) as channel:
        return stream(
            channel,
            f"{FEDERATION}/Attend",
            [hello(said or name, *clients)],
            pb.CoordinatorMessage,
            keep_open=True,
        )


def test_a_worker_is_who_its_certificate_says(site: Site) -> None:
    outcome = attending(site, "mallory", said="alpha")
    assert (outcome.code, outcome.reason) == (Code.PERMISSION_DENIED, "identity_mismatch")
    site.well()


def test_other_workers_clients_are_not_to_be_had_neither_while_they_are_connected_nor_after(
    site: Site,
) -> None:
    outcome = attending(site, "mallory", site.cohort[0])
    assert (outcome.code, outcome.reason) == (Code.PERMISSION_DENIED, "client_bound")
    theirs = site.cohort[2:]
    site.beta.close()
    site.federation.until(
        lambda: "beta" not in {each.worker for each in site.federation.status().workers}, "beta is gone"
    )
    outcome = attending(site, "mallory", *theirs)
    assert (outcome.code, outcome.reason) == (Code.PERMISSION_DENIED, "client_bound")
    site.beta = site.worker("beta", theirs)
    site.beta.expect("train")
    site.well()


def test_an_evaluator_hosts_nobody(site: Site) -> None:
    outcome = attending(site, "eva", site.outsider, role=Role.EVALUATOR)
    assert (outcome.code, outcome.reason) == (Code.PERMISSION_DENIED, "role")


def test_a_flood_of_refused_calls_is_a_few_lines_of_the_log(site: Site) -> None:
    """The counter has all of them; another holder's refusals are still written."""
    many, key = 400, ("refused", "fetch_blob", "no_session")
    before = site.counts().get(key, 0)
    request = pb.FetchBlobRequest(digest=site.task.base.full.digest)
    for name, times in (("trudy", many), ("eve", 1)):
        with site.federation.channel(Role.WORKER, name) as channel:
            for _ in range(times):
                outcome = ask(channel, f"{FEDERATION}/FetchBlob", request, pb.BlobPart)
                assert outcome.reason == "no_session"
    assert site.counts()[key] == before + many + 1
    events = site.federation.coordinator.events("refused")
    lines = Counter(
        each.get("holder", "").rpartition("/")[2] for each in events if each["reason"] == "no_session"
    )
    assert sum(lines.values()) < many / 4
    assert lines["trudy"] <= 2 * FEW, "a minute may turn meanwhile"
    assert lines["eve"] == 1


def test_a_flood_of_failures_is_a_few_lines_too(site: Site) -> None:
    many = 60
    with site.worker("carol", []) as carol:
        for _ in range(many):
            carol.up.put(pb.WorkerMessage(task_failed=pb.TaskFailed(round=2, attempt=1, reason="storage")))
        site.federation.until(
            lambda: len(site.federation.coordinator.events("task_failed")) >= FEW, "the failures arrive"
        )
        # Ends the stream, and proves that everything before it was read.
        carol.up.put(pb.WorkerMessage())
        assert carol.next() is None
    told = [each for each in site.federation.coordinator.events("task_failed") if each["worker"] == "carol"]
    assert FEW <= len(told) <= 2 * FEW
    site.well()


def test_a_stolen_session_token_opens_nothing(site: Site) -> None:
    with site.federation.channel(Role.WORKER, "mallory") as channel:
        request = pb.FetchBlobRequest(digest=site.task.base.full.digest)
        path = f"{FEDERATION}/FetchBlob"
        outcome = ask(channel, path, request, pb.BlobPart, metadata=site.alpha.metadata())
        assert (outcome.code, outcome.reason) == (Code.PERMISSION_DENIED, "identity_mismatch")
        upload = pb.UploadPart(envelope=site.envelope(site.cohort[0]))
        path = f"{FEDERATION}/SubmitUpdate"
        outcome = stream(channel, path, [upload], pb.UploadReply, metadata=site.alpha.metadata())
        assert (outcome.code, outcome.reason) == (Code.PERMISSION_DENIED, "identity_mismatch")
    site.well()


def test_a_client_is_moved_by_the_operator_and_by_nobody_else(site: Site) -> None:
    wish = operator_pb.MoveClientRequest(client=site.cohort[0], worker="mallory")
    for role, name in ((Role.WORKER, "mallory"), (Role.OBSERVER, "o")):
        with site.federation.channel(role, name) as channel:
            outcome = ask(channel, f"{OPERATOR}/MoveClient", wish, operator_pb.MoveClientReply)
            assert (outcome.code, outcome.reason) == (Code.PERMISSION_DENIED, "role")
    with site.federation.channel() as channel:
        outcome = ask(channel, f"{OPERATOR}/MoveClient", wish, operator_pb.MoveClientReply)
        assert (outcome.code, outcome.reason) == (Code.FAILED_PRECONDITION, "conflict")
        assert "alpha" in outcome.detail


def revoke(site: Site, role: Role, name: str) -> operator_pb.RevokeReply:
    wish = operator_pb.RevokeRequest(identity=operator_pb.Identity(role=role.value, name=name))
    return site.federation.operator("Revoke", wish, operator_pb.RevokeReply)


def test_a_revoked_worker_is_gone_within_a_second_and_stays_out_after_a_restart(site: Site) -> None:
    gamma = site.worker("gamma", [])
    over = threading.Event()

    def wait_for_the_end() -> None:
        while gamma.next() is not None:
            pass
        over.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    started = time.monotonic()
    assert revoke(site, Role.WORKER, "gamma").connected
    assert over.wait(10)
    took = time.monotonic() - started
    assert took < 1, took
    assert gamma.status is not None
    assert gamma.status.code() is Code.PERMISSION_DENIED
    assert dict(gamma.status.trailing_metadata())["ssd-reason"] == "revoked"
    with pytest.raises(grpc.RpcError) as refused:
        gamma.fetch(site.task.base.full.digest)
    assert dict(refused.value.trailing_metadata())["ssd-reason"] == "revoked"
    assert attending(site, "gamma").reason == "revoked"
    (line,) = [each for each in site.federation.coordinator.events("audit") if each["action"] == "revoke"]
    assert (line["by"], line["role"], line["name"]) == ("ssd://test/operator/operator", "worker", "gamma")


STREAMS = {
    f"{OPERATOR}/Watch": operator_pb.WatchRequest(),
    "/grpc.health.v1.Health/Watch": health_pb2.HealthCheckRequest(),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": (
        reflection_pb2.ServerReflectionRequest(list_services="")
    ),
}
"""Calls of a reader that go on for as long as the reader likes, of every service that has one."""


@pytest.mark.parametrize("path", STREAMS)
def test_a_revoked_reader_sees_nothing_more_after_a_second(site: Site, path: str) -> None:
    """Also when nothing happens that a watcher would be told."""
    name, over = f"olga-{list(STREAMS).index(path)}", threading.Event()

    def requests() -> Iterator[bytes]:
        yield STREAMS[path].SerializeToString()
        over.wait(30)

    with site.federation.channel(Role.OBSERVER, name) as channel:
        call = channel.stream_stream(path, as_bytes, bytes)(requests(), timeout=30)
        next(call)
        # The others of the same reader and those of other readers are told apart.
        with site.federation.channel(Role.OBSERVER, "oscar") as other:
            unharmed = other.stream_stream(path, as_bytes, bytes)(requests(), timeout=30)
            next(unharmed)
            started = time.monotonic()
            revoke(site, Role.OBSERVER, name)
            with pytest.raises(grpc.RpcError) as refused:
                for _ in call:
                    pass
            took = time.monotonic() - started
            assert unharmed.is_active()
            over.set()
        assert took < 1, took
        assert refused.value.code() is Code.PERMISSION_DENIED
        assert dict(refused.value.trailing_metadata())["ssd-reason"] == "revoked"
    site.well()


def test_the_round_commits_as_if_nothing_had_happened(site: Site) -> None:
    site.check_end()


def test_what_was_bound_and_revoked_is_so_after_a_restart(site: Site) -> None:
    site.federation.start_coordinator(**{"run.rounds": 3})
    assert attending(site, "gamma").reason == "revoked"
    assert attending(site, "mallory", CLIENTS[0]).reason == "client_bound"
    with RawWorker(site.address, "beta", site.cohort[2:], pki=site.federation.pki) as beta:
        beta.attend()
        assert beta.welcome is not None
