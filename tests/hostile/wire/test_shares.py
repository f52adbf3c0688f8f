"""What one certificate can take of what everybody shares, over real TLS: hellos, watches, uploads, replies never read."""

from __future__ import annotations

import contextlib
import re
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from coordinator.rpc.federation.hello import MAX_UNFINISHED_PER_HOLDER
from coordinator.rpc.interceptors.auth import call_name
from coordinator.rpc.interceptors.gate import CALLS_PER_HOLDER
from coordinator.rpc.serving.calls import LAST_WORDS_SECONDS
from ssd.trust.names import Role
from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import operator_pb2 as operator_pb
from wire.hostile import Site
from wire.raw_http2 import WINDOW_UPDATE, RawHttp2, frame, message
from wire.wire_calls import FEDERATION, OPERATOR

pytestmark = pytest.mark.e2e
MIB = 1 << 20
UPLOADS = 4
SHORT = {
    "limits.stall_seconds": 2.0,
    "limits.heartbeat_seconds": 3.0,
    "limits.uploads_per_worker": UPLOADS,
}
HEALTH = health_pb2.HealthCheckRequest(service="").SerializeToString()
SERVICES = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("shares"), **SHORT) as site:
        yield site


def resident(site: Site) -> int:
    """VmRSS of the coordinator, bytes."""
    assert site.federation.coordinator is not None
    status = Path(f"/proc/{site.federation.coordinator.process.pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


@contextlib.contextmanager
def raw(site: Site, tmp_path: Path, role: Role, name: str, **how: int) -> Iterator[RawHttp2]:
    assert site.federation.pki is not None
    tls = site.federation.pki.context(role, name, tmp_path)
    with RawHttp2(site.federation.port, tls=tls, **how) as peer:
        yield peer


def endings(peer: RawHttp2, calls: list[int], patience: float = 20.0) -> Counter[str]:
    """The reasons calls ended with; empty for a stream that was reset without one."""
    return Counter(peer.ending(call, patience=patience).reason for call in calls)


CHANNELS, CALLS, PARTS = 4, 16, 5
"""What one certificate tries at once: connections, hellos on each, and parts of each that promise more."""


class Hellos:
    """Hellos of one certificate that promise more, again and again from several threads, until told to stop."""

    def __init__(self, site: Site, name: str) -> None:
        self._site, self._name = site, name
        self._over = threading.Event()
        clients = [pb.HostedClient(client=f"{n:0120d}") for n in range(16_000)]
        fields = {"worker": name, "instance": "a" * 32, "protocol_min": 1, "protocol_max": 1, "build": "x"}
        self._part = pb.WorkerMessage(
            hello=pb.Hello(**fields, clients=clients, more=True)
        ).SerializeToString()
        self._threads = [threading.Thread(target=self._flood, daemon=True) for _ in range(CHANNELS)]
        self.reasons: Counter[str] = Counter()

    @property
    def part_bytes(self) -> int:
        return len(self._part)

    def __enter__(self) -> Hellos:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _flood(self) -> None:
        while not self._over.is_set():
            with self._site.federation.channel(Role.WORKER, self._name) as channel:
                calls = [self._call(channel) for _ in range(CALLS)]
                for call in calls:
                    with contextlib.suppress(grpc.RpcError):
                        list(call)
                    trailing = dict(call.trailing_metadata() or ())
                    self.reasons[str(trailing.get("ssd-reason", ""))] += 1

    def _call(self, channel: grpc.Channel) -> grpc.Call:
        def up() -> Iterator[bytes]:
            for _ in range(PARTS):
                yield self._part
            self._over.wait(30)

        method = channel.stream_stream(f"{FEDERATION}/Attend", lambda part: part, lambda part: part)
        return method(up(), timeout=30)


def test_unfinished_hellos_of_one_certificate_keep_nobody_out(site: Site) -> None:
    before = resident(site)
    with Hellos(site, "mallory") as hellos:
        site.federation.until(lambda: hellos.reasons["no_room"] >= 40, "its share is spent")
        for number in range(30):
            with site.federation.raw_worker(f"newcomer-{number}", []) as newcomer:
                newcomer.attend()
                assert newcomer.welcome is not None, (number, newcomer.status)
        grown = resident(site) - before
    # Of an unfinished hello all parts are there, as they came and as parsed; of a refused one gRPC has read one part.
    unfinished, refused = MAX_UNFINISHED_PER_HOLDER * PARTS * 2, CHANNELS * CALLS
    assert grown < (unfinished + refused) * hellos.part_bytes, grown
    site.well()


def test_watches_of_one_certificate_are_so_many_and_others_watch_on(site: Site, tmp_path: Path) -> None:
    request = message(operator_pb.WatchRequest().SerializeToString())
    with raw(site, tmp_path, Role.OBSERVER, "nosy") as peer:
        calls = [peer.call(f"{OPERATOR}/Watch") for _ in range(CALLS_PER_HOLDER + 5)]
        for call in calls:
            peer.data(call, request, end=True)
        assert endings(peer, calls[CALLS_PER_HOLDER:]) == {"no_room": 5}
        with raw(site, tmp_path, Role.OBSERVER, "other") as other:
            call = other.call(f"{OPERATOR}/Watch")
            other.data(call, request, end=True)
            site.federation.until(
                lambda: (
                    other.pump(0.1) and any(each.kind == 0 and each.stream == call for each in other.frames)
                ),
                "another one gets its status",
            )
    site.well()


@pytest.mark.parametrize(
    ("path", "role", "request_"),
    [
        (f"{OPERATOR}/Status", Role.OBSERVER, b""),
        (f"{OPERATOR}/Rounds", Role.OBSERVER, b""),
        (f"{OPERATOR}/Clients", Role.OBSERVER, b""),
        (f"{OPERATOR}/Evaluations", Role.OBSERVER, b""),
        (f"{OPERATOR}/Watch", Role.OBSERVER, b""),
        ("/grpc.health.v1.Health/Check", Role.OBSERVER, HEALTH),
        ("/grpc.health.v1.Health/Watch", Role.OBSERVER, HEALTH),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Role.OBSERVER, SERVICES),
    ],
)
def test_replies_that_are_never_read_are_so_many_for_a_certificate(
    site: Site, tmp_path: Path, path: str, role: Role, request_: bytes
) -> None:
    name, call = f"deaf-{path.rpartition('/')[2]}".lower(), call_name(path)
    more = "reflection" in path  # there the stream of requests stays open
    key = ("refused", call, "no_room")
    before = site.counts().get(key, 0)

    def begun(peer: RawHttp2) -> int:
        begun = peer.call(path)
        peer.data(begun, message(request_), end=not more)
        return begun

    with raw(site, tmp_path, role, name, window=0) as peer:
        for _ in range(CALLS_PER_HOLDER):
            begun(peer)
        assert peer.ending(begun(peer)).reason == "no_room"
        # It is not enough to wait until nobody works on them any more.
        peer.pump(float(SHORT["limits.stall_seconds"]) + LAST_WORDS_SECONDS + 1)
        assert peer.ending(begun(peer)).reason == "no_room"
        assert site.counts()[key] == before + 2
    with raw(site, tmp_path, role, name) as peer:
        # With its connection they are gone.
        site.federation.until(
            lambda: peer.ending(begun(peer), patience=0.5).reason != "no_room", "it may call again"
        )
    site.well()


def test_a_control_stream_that_is_never_read_ends(site: Site, tmp_path: Path) -> None:
    """Its worker reports as it should, but takes nothing."""
    fields = {"worker": "deaf", "instance": "a" * 32, "protocol_min": 1, "protocol_max": 1, "build": "x"}
    hello = pb.WorkerMessage(hello=pb.Hello(**fields)).SerializeToString()
    beat = pb.WorkerMessage(heartbeat=pb.Heartbeat()).SerializeToString()
    with raw(site, tmp_path, Role.WORKER, "deaf", window=0) as peer:
        call = peer.call(f"{FEDERATION}/Attend")
        peer.data(call, message(hello))
        for _ in range(20):
            peer.data(call, message(beat), patience=1)
            peer.pump(0.5)
            if "deaf" not in {each.worker for each in site.federation.status().workers}:
                break
        assert "deaf" not in {each.worker for each in site.federation.status().workers}
    site.well()


def test_uploads_whose_replies_are_never_read_are_so_many_whatever_session_they_began_in(
    site: Site, tmp_path: Path
) -> None:
    """Sixty calls in three sessions of one worker: never more than its share is under way, and none outlives it."""
    client = site.cohort[0]
    envelope = message(pb.UploadPart(envelope=site.envelope(client)).SerializeToString())
    with raw(site, tmp_path, Role.WORKER, "alpha", window=0) as peer:
        under_way = 0
        for _ in range(3):
            calls = [
                peer.call(f"{FEDERATION}/SubmitUpdate", headers=site.alpha.metadata()) for _ in range(20)
            ]
            for call in calls:
                peer.data(call, envelope)
            reasons = [peer.ending(call, patience=0.2).reason for call in calls]
            under_way += reasons.count("")
            assert reasons.count("no_room") == len(calls) - reasons.count("")
            assert under_way <= UPLOADS
            site.alpha = site.worker("alpha", site.alpha.clients)
    site.contribute(site.alpha, client)


def test_a_window_that_opens_late_is_still_served(site: Site, tmp_path: Path) -> None:
    """Patience, not suspicion: who reads within it gets its reply."""
    with raw(site, tmp_path, Role.OBSERVER, "slow", window=0) as peer:
        call = peer.call(f"{OPERATOR}/Status")
        peer.data(call, message(b""), end=True)
        peer.pump(1.0)
        peer.send(frame(WINDOW_UPDATE, 0, call, struct.pack(">I", MIB)))
        assert peer.ending(call).status == 0


def test_the_round_commits_as_if_nothing_had_happened(site: Site) -> None:
    site.check_end()
