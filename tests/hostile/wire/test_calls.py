"""Bytes that are no messages, messages that are too large, blobs that are nobody's business."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from ssd.digest import CHUNK_BYTES
from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import operator_pb2 as operator_pb
from wire.hostile import Site
from wire.wire_calls import FEDERATION, OPERATOR, Outcome, ask, stream

pytestmark = pytest.mark.e2e
Code = grpc.StatusCode
GARBAGE = [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x08", b"\x0a\x02\xff\xfe", b"\x00" * 9, b"\x0b" * 200]
"""A tag cut short, a length past the end, no value, bad UTF-8 or a bad part, tag zero, groups never closed."""
OPERATOR_CALLS = [
    "Status",
    "Rounds",
    "Clients",
    "Pause",
    "Resume",
    "Drain",
    "Revoke",
    "Version",
    "Watch",
    "Download",
]
LARGE, HUGE = 3 << 20, 6 << 20
"""Over limits.max_message_bytes (2.5 MiB), and over gRPC's own limit, twice that."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("calls"), insecure=True) as site:
        yield site


def fetch(site: Site, request: Any, metadata: Any = None) -> Outcome:
    chosen = site.alpha.metadata() if metadata is None else metadata
    return ask(site.alpha.channel, f"{FEDERATION}/FetchBlob", request, pb.BlobPart, metadata=chosen)


def operate(site: Site, call: str, request: Any) -> Outcome:
    return ask(site.alpha.channel, f"{OPERATOR}/{call}", request, operator_pb.StatusReply)


# ----------------------------------------------------------------------------------------------- no messages


@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
def test_bytes_that_are_no_message(site: Site, data: bytes) -> None:
    malformed = (Code.INVALID_ARGUMENT, "malformed_message")
    site.refuses("attend", lambda: site.attend([data]), *malformed)
    site.refuses("submit_update", lambda: site.upload(site.alpha, [data]), *malformed)
    site.refuses("fetch_blob", lambda: fetch(site, data), *malformed)
    for call in OPERATOR_CALLS:
        if call in ("Revoke", "Download") or data != b"\x0a\x02\xff\xfe":
            site.refuses(call.lower(), lambda call=call: operate(site, call, data), *malformed)


def test_messages_over_our_limit(site: Site) -> None:
    too_large = (Code.RESOURCE_EXHAUSTED, "message_too_large")
    for size in (4 << 10, 1 << 20, LARGE):
        request = pb.FetchBlobRequest(digest="f" * size)
        site.refuses("fetch_blob", lambda request=request: fetch(site, request), *too_large)
    hello = pb.WorkerMessage(hello=pb.Hello(worker="mallory", build="b" * LARGE))
    site.refuses("attend", lambda: site.attend([hello]), *too_large)
    envelope = pb.UploadPart(envelope=pb.Envelope(chunk_digests=bytes(LARGE)))
    site.refuses("submit_update", lambda: site.upload(site.alpha, [envelope], keep_open=True), *too_large)
    revoke = operator_pb.RevokeRequest(client="c" * (65 << 10))
    site.refuses("revoke", lambda: operate(site, "Revoke", revoke), *too_large)


def test_messages_over_the_limit_of_grpc(site: Site) -> None:
    """They never reach our code, so nothing is promised but that nothing breaks."""
    outcomes = [
        fetch(site, pb.FetchBlobRequest(digest="f" * HUGE)),
        operate(site, "Revoke", operator_pb.RevokeRequest(client="c" * HUGE)),
        site.upload(site.alpha, [pb.UploadPart(chunk=pb.Chunk(data=bytes(HUGE)))], keep_open=True),
        site.attend([pb.WorkerMessage(hello=pb.Hello(build="b" * HUGE))]),
    ]
    for outcome in outcomes:
        assert outcome.code in (Code.RESOURCE_EXHAUSTED, Code.FAILED_PRECONDITION), outcome
    site.well()


def test_calls_that_do_not_exist(site: Site) -> None:
    for path in ("/ssd_proto.v1.Federation/Nothing", "/nothing.at.All/Status", f"{FEDERATION}/../Attend"):
        outcome = stream(site.alpha.channel, path, [b"x"], pb.UploadReply)
        assert outcome.code is Code.UNIMPLEMENTED, outcome
    site.well()


def test_metadata_without_measure(site: Site) -> None:
    many = tuple((f"x-{index}", "v" * 500) for index in range(200))
    outcome = fetch(site, pb.FetchBlobRequest(digest="f" * 64), (*site.alpha.metadata(), *many))
    assert outcome.code in (Code.RESOURCE_EXHAUSTED, Code.NOT_FOUND), outcome
    site.well()


# ----------------------------------------------------------------------------------------------------- blobs


@pytest.mark.parametrize(
    "digest",
    ["", "0" * 64, "F" * 64, "../../coordinator.toml", "..", "a" * 63, "\0", "é" * 64, "x" * 4000],
    ids=range(9),
)
def test_digests_that_name_nothing(site: Site, digest: str) -> None:
    request = pb.FetchBlobRequest(digest=digest)
    site.refuses("fetch_blob", lambda: fetch(site, request), Code.NOT_FOUND, "unknown_blob")
    wanted = operator_pb.DownloadRequest(digest=digest[:1000])
    site.refuses("download", lambda: operate(site, "Download", wanted), Code.NOT_FOUND, "unknown_blob")


def test_the_servers_own_state_is_not_served(site: Site) -> None:
    """The residual tells what the last delta left out; workers get versions and deltas, nothing else."""
    store = site.federation.store()
    try:
        state = {name: blob.digest for name, blob in store.versions()[-1].server_state.items()}
    finally:
        store.close()
    assert set(state) == {"residual"}
    for digest in state.values():
        assert (site.federation.state_dir / "blobs" / digest[:2] / digest).is_file()
        request = pb.FetchBlobRequest(digest=digest)
        site.refuses(
            "fetch_blob", lambda request=request: fetch(site, request), Code.NOT_FOUND, "unknown_blob"
        )


@pytest.mark.parametrize("offset", [1, CHUNK_BYTES - 1, CHUNK_BYTES, 1 << 63, 2**64 - 1])
def test_offsets_that_are_none(site: Site, offset: int) -> None:
    digest = site.task.base.full.digest
    request = pb.FetchBlobRequest(digest=digest, offset=offset)
    site.refuses("fetch_blob", lambda: fetch(site, request), Code.OUT_OF_RANGE, "bad_offset")
    wanted = operator_pb.DownloadRequest(digest=digest, offset=offset)
    site.refuses("download", lambda: operate(site, "Download", wanted), Code.OUT_OF_RANGE, "bad_offset")


@pytest.mark.parametrize("metadata", [(), (("ssd-session", "0" * 32),), (("ssd-session", ""),)])
def test_blobs_are_for_those_who_attend(site: Site, metadata: Any) -> None:
    request = pb.FetchBlobRequest(digest=site.task.base.full.digest)
    site.refuses("fetch_blob", lambda: fetch(site, request, metadata), Code.UNAUTHENTICATED, "no_session")


def test_a_blob_that_is_gone_or_damaged_is_refused_not_served(site: Site) -> None:
    digest = site.task.base.full.digest
    path = site.federation.state_dir / "blobs" / digest[:2] / digest
    request = pb.FetchBlobRequest(digest=digest)
    away = path.with_suffix(".away")
    path.rename(away)
    try:
        site.refuses("fetch_blob", lambda: fetch(site, request), Code.NOT_FOUND, "unknown_blob")
        path.write_bytes(away.read_bytes()[:-1])
        site.refuses("fetch_blob", lambda: fetch(site, request), Code.UNAVAILABLE, "storage")
        wanted = operator_pb.DownloadRequest(digest=digest)
        site.refuses("download", lambda: operate(site, "Download", wanted), Code.UNAVAILABLE, "storage")
    finally:
        away.replace(path)
    coordinator = site.federation.coordinator
    assert coordinator is not None
    assert "is damaged" in coordinator.events("blob_corrupt")[0]["detail"]


def test_wishes_of_an_operator_that_cannot_be_granted(site: Site) -> None:
    nobody = operator_pb.RevokeRequest(client="../../x")
    site.refuses("revoke", lambda: operate(site, "Revoke", nobody), Code.NOT_FOUND, "not_found")
    for number in (3, 2**64 - 1):
        version = operator_pb.VersionRequest(number=number)
        site.refuses(
            "version", lambda version=version: operate(site, "Version", version), Code.NOT_FOUND, "not_found"
        )
    rounds = ask(
        site.alpha.channel,
        f"{OPERATOR}/Rounds",
        operator_pb.RoundsRequest(limit=2**32 - 1),
        operator_pb.RoundsReply,
    )
    assert rounds.code is Code.OK


# -------------------------------------------------------------------------------------- not even gRPC or HTTP


NOISE = [
    b"",
    b"\0" * 100,
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
]
"""Nothing, zeros, HTTP/1, the beginning of TLS, and HTTP/2 that goes astray after its preface."""


def test_noise_on_both_ports(site: Site) -> None:
    with contextlib.ExitStack() as open_ones:
        for port in (site.federation.port, site.federation.http_port):
            for noise in NOISE * 3:
                peer = open_ones.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
                peer.sendall(noise)
        # Some of them stay open, silent, for as long as the round goes on.
        site.well()
    site.well()


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("POST /metrics HTTP/1.1", 405),
        ("GET /../../etc/passwd HTTP/1.1", 404),
        ("GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1", 404),
        ("GET /livez?" + "x" * 20_000 + " HTTP/1.1", 400),
        ("nonsense", 400),
    ],
    ids=range(5),
)
def test_http_requests_that_ask_for_something_else(site: Site, request_line: str, status: int) -> None:
    with socket.create_connection(("127.0.0.1", site.federation.http_port), timeout=10) as peer:
        peer.sendall(f"{request_line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = peer.recv(1000).decode()
    assert answer.split(" ")[1] == str(status), answer
    site.well()


def test_the_round_commits_as_if_nothing_had_happened(site: Site) -> None:
    site.check_end()
