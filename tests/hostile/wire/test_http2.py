"""What no gRPC library sends: lengths that lie, compressed bombs, connections that are none, calls that never go on."""

from __future__ import annotations

import gzip
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from ssd.digest import CHUNK_BYTES
from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import operator_pb2 as operator_pb
from wire.hostile import Site
from wire.raw_http2 import DATA, PING, PREFACE, RST_STREAM, SETTINGS, RawHttp2, frame, message
from wire.wire_calls import FEDERATION, OPERATOR, Upload

pytestmark = pytest.mark.e2e
Code = grpc.StatusCode
MIB = 1 << 20
SHORT = {
    "limits.handshake_seconds": 1.0,
    "limits.stall_seconds": 2.0,
    "limits.idle_seconds": 4.0,
    "limits.calls_per_connection": 32,
    "method.config": {"parameters": 1_200_000},
}
"""Patience that ends within a test. A body has 2.4 MB in float16: three chunks, the last one short."""
LIMIT = 2 * 2_621_440
"""gRPC's own limit for one message: twice `limits.max_message_bytes`."""
CALLS = [f"{FEDERATION}/{name}" for name in ("Attend", "FetchBlob", "SubmitUpdate")] + [
    f"{OPERATOR}/{name}" for name in ("Status", "Revoke", "Watch", "Download")
]
CALLS += ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("http2"), insecure=True, **SHORT) as site:
        yield site


def raw(site: Site, **how: int) -> RawHttp2:
    return RawHttp2(site.federation.port, **how)


def session(site: Site) -> tuple[tuple[str, str], ...]:
    return site.alpha.metadata()


def peak(site: Site) -> int:
    """VmHWM of the coordinator, bytes."""
    assert site.federation.coordinator is not None
    status = Path(f"/proc/{site.federation.coordinator.process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


# ------------------------------------------------------------------------------------------------- lengths


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("declared", [LIMIT + 1, 2**31, 2**32 - 1])
def test_a_message_over_the_limit_is_refused_at_its_declared_length(
    site: Site, path: str, declared: int
) -> None:
    with raw(site) as peer:
        call = peer.call(path, headers=session(site))
        sent = peer.data(call, message(bytes(16 * MIB), declared=declared), patience=2)
        ended = peer.ending(call)
    assert ended.status == Code.RESOURCE_EXHAUSTED.value[0], ended
    # What was on its way before the refusal came: no more than a stream may send ahead.
    assert sent <= MIB
    site.well()


def test_length_lies_take_no_memory(site: Site) -> None:
    before = peak(site)
    with raw(site) as peer:
        for _ in range(30):
            call = peer.call(f"{OPERATOR}/Status")
            peer.data(call, message(bytes(MIB), declared=2**32 - 1), patience=1)
            peer.ending(call)
    assert peak(site) - before < 16 * MIB
    site.well()


# --------------------------------------------------------------------------------------------- compression


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_call_is_refused_and_never_inflated(site: Site, path: str, encoding: str) -> None:
    bomb = gzip.compress(bytes(256 * MIB), 9)
    before = peak(site)
    with raw(site) as peer:
        call = peer.call(path, headers=(*session(site), ("grpc-encoding", encoding)))
        peer.data(call, message(bomb, compressed=True), patience=2)
        ended = peer.ending(call)
    assert ended.status == Code.UNIMPLEMENTED.value[0], ended
    assert "disabled" in ended.message
    assert peak(site) - before < 16 * MIB
    site.well()


def test_a_compressed_flag_without_an_encoding_is_refused(site: Site) -> None:
    with raw(site) as peer:
        call = peer.call(f"{FEDERATION}/SubmitUpdate", headers=session(site))
        peer.data(call, message(b"x" * 100, compressed=True), patience=2)
        assert peer.ending(call).status == Code.INTERNAL.value[0]
    site.well()


# --------------------------------------------------------------------------------------------- connections


@pytest.mark.parametrize("sent", [b"", PREFACE[:10], PREFACE, PREFACE + b"\0\0\6\4\0\0"])
def test_a_connection_that_never_becomes_one_is_closed(site: Site, sent: bytes) -> None:
    with raw(site, preface=False) as peer:
        peer.send(sent)
        assert peer.ending(patience=15).closed
    site.well()


def test_a_connection_without_calls_is_closed(site: Site) -> None:
    with raw(site) as peer:
        ended = peer.ending(patience=20)
    assert "idle" in ended.goaway
    site.well()


def test_too_many_pings_end_the_connection(site: Site) -> None:
    with raw(site) as peer:
        for _ in range(20):
            peer.send(frame(PING, 0, 0, bytes(8)))
            peer.pump(0.05)
        ended = peer.ending(patience=5)
    assert ended.goaway == "too_many_pings"
    site.well()


def test_a_connection_has_so_many_calls_and_no_more(site: Site) -> None:
    with raw(site) as peer:
        peer.pump(0.5)
        calls = [peer.call(f"{FEDERATION}/Attend") for _ in range(100)]
        reset: set[int] = set()
        for _ in range(40):  # a busy machine takes longer
            peer.pump(0.5)
            reset = {each.stream for each in peer.frames if each.kind == RST_STREAM} & set(calls)
            if len(reset) >= 60:
                break
        assert len(reset) >= 60
    site.well()


def test_calls_that_are_reset_as_they_come_leave_nothing_behind(site: Site) -> None:
    before = peak(site)
    with raw(site) as peer:
        for number in range(5000):
            call = peer.call(f"{FEDERATION}/Attend")
            peer.send(frame(RST_STREAM, 0, call, struct.pack(">I", 8)))
            if number % 50 == 0:
                peer.pump(0.001)
    site.well()
    assert peak(site) - before < 64 * MIB


@pytest.mark.parametrize(
    "nonsense",
    [frame(SETTINGS, 0, 0, b"12345"), frame(PING, 0, 0, b"1"), b"\xff\xff\xff" + bytes(6)],
    ids=["settings cut short", "a ping of one byte", "a frame of 16 MiB"],
)
def test_frames_that_are_none_end_the_connection(site: Site, nonsense: bytes) -> None:
    with raw(site) as peer:
        peer.pump(0.3)
        peer.send(nonsense)
        ended = peer.ending(patience=15)
    assert ended.closed
    assert "idle" not in ended.goaway
    site.well()


def test_connections_over_the_cap_are_closed_as_they_come(tmp_path: Path) -> None:
    with Site(
        tmp_path, insecure=True, **{"limits.max_connections": 20, "limits.handshake_seconds": 60.0}
    ) as site:
        peers = [raw(site) for _ in range(60)]
        try:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and sum(peer.closed for peer in peers) < 40:
                for peer in peers:
                    if not peer.closed:
                        peer.pump(0.01)
            assert sum(peer.closed for peer in peers) >= 40
            # Those who were there go on as if nothing had happened.
            site.contribute(site.alpha, site.cohort[0])
        finally:
            for peer in peers:
                peer.socket.close()
        site.federation.until(lambda: reachable(site), "there is room again")
        site.check_end()


def reachable(site: Site) -> bool:
    try:
        return bool(site.federation.status().run_id)
    except grpc.RpcError:
        return False


# ------------------------------------------------------------------------------------ calls that never go on


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"{FEDERATION}/FetchBlob", "fetch_blob"),
        (f"{OPERATOR}/Status", "status"),
        (f"{OPERATOR}/Download", "download"),
        ("/grpc.health.v1.Health/Check", "check"),
    ],
)
def test_a_request_that_never_arrives_whole_is_not_waited_for(site: Site, path: str, name: str) -> None:
    with raw(site) as peer, site.counting({("refused", name, "stalled"): 1}):
        call = peer.call(path, headers=session(site))
        peer.data(call, message(b"x" * 100, declared=4 * MIB), patience=2)
        ended = peer.ending(call, patience=15)
        assert (ended.status, ended.reason) == (Code.DEADLINE_EXCEEDED.value[0], "stalled"), ended


def test_a_call_that_ends_without_its_request(site: Site) -> None:
    with raw(site) as peer, site.counting({("refused", "status", "malformed_message"): 1}):
        call = peer.call(f"{OPERATOR}/Status")
        peer.send(frame(DATA, 1, call))
        assert peer.ending(call).status == Code.INVALID_ARGUMENT.value[0]


@pytest.mark.parametrize("parts", [0, 1, 2])
def test_an_upload_that_stalls_while_its_session_lives_loses_its_call_and_its_room(
    site: Site, parts: int
) -> None:
    """Whether nothing comes at all, or a byte now and then."""
    client = site.cohort[0]
    body = site.honest[client][0]
    upload = Upload(site.alpha, site.envelope(client))
    assert upload.proceeded()
    assert upload.offset == 0
    assert site.federation.metric("ssd_coordinator_staging_bytes", kind="ram") == len(body)
    stalled = {("updates", "rejected", "stalled"): 1, ("refused", "submit_update", "stalled"): 1}
    with site.counting(stalled):
        upload.send_body(body, CHUNK_BYTES * min(parts, 1))
        if parts == 2:
            for _ in range(100):
                upload.send_body(body, upload.offset + 1)
                time.sleep(0.05)
        ended = upload.outcome()
    assert (ended.code, ended.reason) == (Code.DEADLINE_EXCEEDED, "stalled")
    assert ended.verdict is None
    assert site.federation.metric("ssd_coordinator_staging_bytes", kind="ram") == 0


def test_an_upload_of_which_a_message_never_ends(site: Site) -> None:
    """A byte a second of one chunk: no message ever arrives, heartbeats do."""
    envelope = pb.UploadPart(envelope=site.envelope(site.cohort[0])).SerializeToString()
    chunk = pb.UploadPart(chunk=pb.Chunk(data=bytes(CHUNK_BYTES))).SerializeToString()
    stalled = {("updates", "rejected", "stalled"): 1, ("refused", "submit_update", "stalled"): 1}
    with raw(site) as peer, site.counting(stalled):
        call = peer.call(f"{FEDERATION}/SubmitUpdate", headers=session(site))
        peer.data(call, message(envelope))
        dribble = message(chunk)
        for place in range(12):
            peer.data(call, dribble[place : place + 1], patience=1)
            peer.pump(0.5)
        ended = peer.ending(call)
        assert (ended.status, ended.reason) == (Code.DEADLINE_EXCEEDED.value[0], "stalled"), ended


def test_blobs_that_are_never_read_are_not_held_for_ever(site: Site) -> None:
    """No window for the answer: the fetch ends, its memory is given back, and others may be asked for."""
    digest = site.task.base.full.digest
    request = pb.FetchBlobRequest(digest=digest).SerializeToString()
    most, refused = 8, ("refused", "fetch_blob", "stalled")
    before = site.counts().get(refused, 0)
    with raw(site, window=0) as peer:
        calls = [peer.call(f"{FEDERATION}/FetchBlob", headers=session(site)) for _ in range(most + 1)]
        for call in calls:
            peer.data(call, message(request), end=True)
        site.federation.until(lambda: site.counts().get(refused, 0) == before + most, "they are cut off")
        # Not even the status can be sent: the streams are reset, and with them goes what was queued.
        endings = {call: peer.ending(call, patience=20) for call in calls}
        one_too_many = [call for call in calls if endings[call].reason == "no_room"]
        assert len(one_too_many) == 1
        assert {each.stream for each in peer.frames if each.kind == RST_STREAM} == set(calls) - set(
            one_too_many
        )
    assert len(site.alpha.fetch(digest)) == site.task.base.full.size
    site.well()


def test_downloads_that_are_never_read_end_too(site: Site) -> None:
    request = operator_pb.DownloadRequest(digest=site.task.base.full.digest).SerializeToString()
    before = site.counts().get(("refused", "download", "stalled"), 0)
    with raw(site, window=0) as peer:
        call = peer.call(f"{OPERATOR}/Download")
        peer.data(call, message(request), end=True)
        site.federation.until(
            lambda: site.counts().get(("refused", "download", "stalled"), 0) == before + 1, "it is cut off"
        )
    site.well()


def test_a_worker_has_so_many_uploads_at_once(site: Site) -> None:
    with (
        site.counting(
            {("refused", "submit_update", "no_room"): 1, ("refused", "submit_update", "stalled"): 16}
        ),
        raw(site) as peer,
    ):
        calls = [peer.call(f"{FEDERATION}/SubmitUpdate", headers=session(site)) for _ in range(17)]
        endings = [peer.ending(call) for call in calls]
    assert sorted(each.reason for each in endings) == ["no_room"] + 16 * ["stalled"]


def test_a_control_stream_that_talks_too_fast_is_read_at_its_pace(tmp_path: Path) -> None:
    throttled = "ssd_coordinator_messages_throttled_total"
    with Site(tmp_path, insecure=True, **{"limits.messages_per_second": 20.0}) as site:
        beat = message(pb.WorkerMessage(heartbeat=pb.Heartbeat()).SerializeToString())
        hello = pb.WorkerMessage(
            hello=pb.Hello(protocol_min=1, protocol_max=1, worker="mallory", instance="a" * 32, build="x")
        )
        with raw(site) as peer:
            call = peer.call(f"{FEDERATION}/Attend")
            peer.data(call, message(hello.SerializeToString()))
            sent = peer.data(call, beat * 1_000_000, patience=1)
            # It may not even send them: what is not read has no window.
            assert sent < 3 * MIB
            site.federation.until(lambda: site.federation.metric(throttled) > 5, "it is slowed down")
            site.contribute(site.alpha, site.cohort[0])
        site.check_end()


def test_the_round_commits_as_if_nothing_had_happened(site: Site) -> None:
    site.check_end()
