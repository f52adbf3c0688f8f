"""Callers that TLS must keep out: the wrong version of it, none at all, and certificates that prove nothing.

Every test asserts that no handler was reached: a call that ends in a handler's hands is counted or changes the status.
"""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from processes.pki import Pki, open_channel
from ssd.trust.authority import Credential
from ssd.trust.names import Role
from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import operator_pb2 as operator_pb
from wire.bare_http2 import call
from wire.hostile import CLIENTS, Site
from wire.wire_calls import FEDERATION, OPERATOR, Outcome, ask, stream

pytestmark = pytest.mark.e2e
Code = grpc.StatusCode
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("tls"), insecure=False) as site:
        yield site


@pytest.fixture(scope="module")
def pki(site: Site) -> Pki:
    assert site.federation.pki is not None
    return site.federation.pki


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Another authority that claims to be this one: the same federation, the same names, its own key."""
    return Pki(tmp_path_factory.mktemp("strangers"))


def hello(worker: str, *clients: str) -> pb.WorkerMessage:
    hosted = [pb.HostedClient(client=client) for client in clients]
    fields = {"protocol_min": 1, "protocol_max": 1, "instance": "a" * 32, "build": "x", "clients": hosted}
    return pb.WorkerMessage(hello=pb.Hello(worker=worker, **fields))


def pausing(channel: grpc.Channel) -> Outcome:
    """The most an operator could want: if it came through, the round would be paused and the site unwell."""
    return ask(channel, f"{OPERATOR}/Pause", operator_pb.PauseRequest(), operator_pb.PauseReply)


def attending(channel: grpc.Channel) -> Outcome:
    """The most a worker could want: another worker's place."""
    return stream(channel, f"{FEDERATION}/Attend", [hello("alpha", *CLIENTS)], pb.CoordinatorMessage)


# ------------------------------------------------------------------------------------------------ no handshake

CERTIFICATES: dict[str, Callable[[Pki, Pki, Role, str], Credential]] = {
    "of an authority that calls itself the same": lambda _, strangers, role, name: strangers.issued(
        role, name
    ),
    "expired": lambda pki, _, role, name: pki.issued_at(role, name, NOW - dt.timedelta(days=2)),
    "not valid yet": lambda pki, _, role, name: pki.issued_at(role, name, NOW + dt.timedelta(days=2)),
    "a server's": lambda pki, *_: pki.issued(Role.COORDINATOR, "coordinator"),
    "of another federation, though signed here": lambda pki, _, role, name: pki.naming(
        f"ssd://elsewhere/{role.value}/{name}"
    ),
    "the authority's own": lambda pki, *_: Credential(pki.authority, pki._authority.key),
}


@pytest.mark.parametrize("kind", CERTIFICATES)
def test_a_certificate_that_proves_nothing_gets_no_call_through(
    site: Site, pki: Pki, strangers: Pki, kind: str
) -> None:
    for call_of, role, name in ((pausing, Role.OPERATOR, "operator"), (attending, Role.WORKER, "alpha")):
        shown = CERTIFICATES[kind](pki, strangers, role, name)
        with site.counting({}), grpc.secure_channel(site.address, pki.showing(shown)) as channel:
            outcome = call_of(channel)
        assert (outcome.code, outcome.reason, outcome.replies) == (Code.UNAVAILABLE, "", []), outcome


def test_a_client_without_any_certificate_gets_no_call_through(site: Site, pki: Pki) -> None:
    credentials = grpc.ssl_channel_credentials(pki.authority)
    with site.counting({}), grpc.secure_channel(site.address, credentials) as channel:
        assert pausing(channel).code is attending(channel).code is Code.UNAVAILABLE


def test_a_client_without_tls_gets_no_call_through(site: Site) -> None:
    with site.counting({}), open_channel(site.address, None, Role.OPERATOR, "operator") as channel:
        assert pausing(channel).code is attending(channel).code is Code.UNAVAILABLE


def test_nobody_is_taken_in_by_a_coordinator_of_another_authority(
    site: Site, pki: Pki, strangers: Pki
) -> None:
    own = pki.issued(Role.OPERATOR, "operator")
    credentials = grpc.ssl_channel_credentials(strangers.authority, own.key, own.certificate)
    with site.counting({}), grpc.secure_channel(site.address, credentials) as channel:
        assert pausing(channel).code is Code.UNAVAILABLE


# ------------------------------------------------------------------------------------------------- TLS 1.2

CALLS: dict[str, tuple[str, Role, str, bytes]] = {
    "attend": (f"{FEDERATION}/Attend", Role.WORKER, "alpha", hello("alpha", *CLIENTS).SerializeToString()),
    "fetch_blob": (f"{FEDERATION}/FetchBlob", Role.WORKER, "alpha", b""),
    "submit_update": (f"{FEDERATION}/SubmitUpdate", Role.WORKER, "alpha", b""),
    "status": (f"{OPERATOR}/Status", Role.OPERATOR, "operator", b""),
    "pause": (f"{OPERATOR}/Pause", Role.OPERATOR, "operator", b""),
    "watch": (f"{OPERATOR}/Watch", Role.OPERATOR, "operator", b""),
    "check": ("/grpc.health.v1.Health/Check", Role.OPERATOR, "operator", b""),
    "server_reflection_info": (
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Role.OPERATOR, "operator", b"\x3a\x00",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_downgraded_call_reaches_no_handler(site: Site, pki: Pki, tmp_path: Path, name: str) -> None:
    """A client that speaks TLS 1.2 at most, whose certificate is in perfect order."""
    method, role, holder, message = CALLS[name]
    own = pki.issued(role, holder)
    with site.counting({("refused", name, "tls_version"): 1}):
        answer = call(
            site.federation.port, pki.authority, own, tmp_path, method, message, ssl.TLSVersion.TLSv1_2
        )
    assert b"tls_version" in answer
    assert b"grpc-status\x0216" in answer, "UNAUTHENTICATED"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_older_versions_do_not_even_shake_hands(
    site: Site, pki: Pki, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    method, role, holder, message = CALLS["pause"]
    with site.counting({}), pytest.raises((ssl.SSLError, ConnectionError)):
        call(
            site.federation.port, pki.authority, pki.issued(role, holder), tmp_path, method, message, version
        )


def test_the_same_client_is_served_when_it_speaks_tls_1_3(site: Site, pki: Pki, tmp_path: Path) -> None:
    """Otherwise the tests above would show no more than that the client is broken."""
    method, role, holder, message = CALLS["check"]
    own = pki.issued(role, holder)
    with site.counting({}):
        answer = call(
            site.federation.port, pki.authority, own, tmp_path, method, message, ssl.TLSVersion.TLSv1_3
        )
    assert b"grpc-status\x010" in answer
    assert health_pb2.HealthCheckResponse(status=1).SerializeToString() in answer


# ------------------------------------------------------------------------- signed here, and still nobody


@pytest.mark.parametrize(
    "uris",
    [
        (),
        ("ssd://test/worker/alpha", "ssd://test/operator/operator"),
        ("ssd://test/worker/alpha", "ssd://test/worker/alpha"),
        ("https://test/worker/alpha",),
        ("ssd://test/root/alpha",),
        ("ssd://test/worker/alpha/operator",),
        ("ssd://test/operator/",),
    ],
    ids=lambda uris: " and ".join(uris) or "none",
)
def test_a_certificate_with_no_or_more_than_one_identity_names_nobody(
    site: Site, pki: Pki, uris: tuple[str, ...]
) -> None:
    with grpc.secure_channel(site.address, pki.showing(pki.naming(*uris))) as channel:
        site.refuses("pause", lambda: pausing(channel), Code.UNAUTHENTICATED, "no_identity")
        site.refuses("attend", lambda: attending(channel), Code.UNAUTHENTICATED, "no_identity")


def test_a_worker_that_says_another_name_than_its_certificate(site: Site, pki: Pki) -> None:
    with open_channel(site.address, pki, Role.WORKER, "mallory") as channel:
        site.refuses("attend", lambda: attending(channel), Code.PERMISSION_DENIED, "identity_mismatch")


def test_after_all_of_it_the_round_commits_to_the_same_digest(site: Site) -> None:
    site.check_end()
