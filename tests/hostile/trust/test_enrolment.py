"""The enrolment port among strangers, and a host with a token among impostors. Real TLS, real gRPC."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from coordinator.rpc.enrolment import CONNECTIONS, MAX_MESSAGE_BYTES, PER_HOST
from rounds.enrolment_place import EnrolmentPlace, RecordingServer, credential, new_authority
from ssd.daemon.address import Address
from ssd.trust.authority import Credential, issue, new_key, subject_of_certificate
from ssd.trust.identity_store import IdentityStore
from ssd.trust.join_token import JoinToken, new_secret
from ssd.trust.names import Role, Subject
from ssd.trust.requests import make_request
from ssd_proto.v1 import enrolment_pb2 as pb
from wire import bare_http2
from worker.connection.enrolment import enrol
from worker.errors import EnrolmentRefused, LinkBroken, StorageFailed
from worker.rpc.enrolment import enroll


@pytest.fixture
def place(tmp_path: Path) -> Iterator[EnrolmentPlace]:
    place = EnrolmentPlace(tmp_path)
    yield place
    place.close()


def join(place: EnrolmentPlace, token: JoinToken, folder: Path, address: Address | None = None) -> Credential:
    enrol(token, address or place.address, folder, enroll, sleep=lambda _: None)
    store = IdentityStore(folder)
    return Credential(store.certificate.read_bytes(), store.key.read_bytes())


def ask(
    place: EnrolmentPlace, message: bytes, method: str = "/ssd_proto.v1.Enrolment/Enroll"
) -> grpc.RpcError | bytes:
    """One raw call; the answer, or how it was refused."""
    credentials = grpc.ssl_channel_credentials(place.authority.certificate)
    with grpc.secure_channel(f"localhost:{place.port}", credentials) as channel:
        try:
            return channel.unary_unary(method)(message, timeout=10)  # type: ignore[no-any-return]
        except grpc.RpcError as error:
            return error


def request(secret: bytes, subject: str = "ssd://f/worker/w1", csr: bytes | None = None) -> bytes:
    asked = make_request(new_key()) if csr is None else csr
    return pb.EnrollRequest(secret=secret, subject=subject, request=asked).SerializeToString()


def reason(answer: grpc.RpcError | bytes) -> str:
    assert isinstance(answer, grpc.RpcError)
    return dict(answer.trailing_metadata() or ()).get("ssd-reason", answer.code().name)


class TestJoining:
    def test_a_token_becomes_a_private_identity_and_its_clients_are_bound(
        self, place: EnrolmentPlace, tmp_path: Path
    ) -> None:
        got = join(place, place.token(clients=("a", "b")), tmp_path / "identity")
        assert got.matches()
        assert subject_of_certificate(got.certificate) == Subject("f", Role.WORKER, "w1")
        files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "identity").iterdir()}
        assert files == {"ca.pem": 0o600, "worker.pem": 0o600, "worker.key": 0o600}
        assert (tmp_path / "identity" / "ca.pem").read_bytes() == place.authority.certificate
        assert place.bound == [("w1", ("a", "b"))]

    def test_the_key_never_leaves(self, place: EnrolmentPlace, tmp_path: Path) -> None:
        sent = []

        def spy(address: Address, authority: bytes, name: str, token: JoinToken, request: bytes) -> bytes:
            sent.append(request)
            return enroll(address, authority, name, token, request)

        enrol(place.token(), place.address, tmp_path / "identity", spy)
        key = serialization.load_pem_private_key((tmp_path / "identity" / "worker.key").read_bytes(), None)
        secret_number = key.private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr]
        assert len(sent) == 1
        assert secret_number not in sent[0]

    def test_again_it_says_nothing_to_anybody_and_changes_nothing(
        self, place: EnrolmentPlace, tmp_path: Path
    ) -> None:
        token = place.token()
        before = join(place, token, tmp_path / "identity")
        nobody = Address(host="127.0.0.1", port=1)
        assert join(place, token, tmp_path / "identity", nobody) == before
        assert place.outcome("issued") == 1

    def test_another_identity_is_replaced_only_when_that_is_asked_for(
        self, place: EnrolmentPlace, tmp_path: Path
    ) -> None:
        before = join(place, place.token(), tmp_path / "identity")
        other = place.token("w2")
        with pytest.raises(EnrolmentRefused, match="--replace"):
            join(place, other, tmp_path / "identity")
        store = IdentityStore(tmp_path / "identity")
        assert Credential(store.certificate.read_bytes(), store.key.read_bytes()) == before
        enrol(other, place.address, tmp_path / "identity", enroll, replace=True)
        assert subject_of_certificate(store.certificate.read_bytes()).name == "w2"

    def test_an_answer_lost_on_the_way_comes_again(self, place: EnrolmentPlace, tmp_path: Path) -> None:
        token = place.token()
        lost = []

        def lossy(address: Address, authority: bytes, name: str, token: JoinToken, request: bytes) -> bytes:
            lost.append(enroll(address, authority, name, token, request))
            raise KeyboardInterrupt  # the process ends here

        with pytest.raises(KeyboardInterrupt):
            enrol(token, place.address, tmp_path / "identity", lossy)
        assert not (tmp_path / "identity" / "worker.pem").exists()
        assert join(place, token, tmp_path / "identity").certificate == lost[0]
        assert (place.outcome("issued"), place.outcome("repeated")) == (1, 1)

    def test_a_folder_that_cannot_be_written_is_found_before_the_token_is_spent(
        self, place: EnrolmentPlace, tmp_path: Path
    ) -> None:
        (tmp_path / "identity").write_bytes(b"a file is in the way")
        token = place.token()
        with pytest.raises(StorageFailed, match="identity"):
            join(place, token, tmp_path / "identity")
        assert place.trust.tokens()[0].used_at is None

    def test_a_busy_coordinator_is_asked_again_and_a_silent_one_given_up(
        self, place: EnrolmentPlace, tmp_path: Path
    ) -> None:
        waited: list[float] = []

        def busy(*_: object) -> bytes:
            raise LinkBroken("too_often", "too many ask at once")

        with pytest.raises(EnrolmentRefused, match="the token stays good"):
            enrol(place.token(), place.address, tmp_path / "identity", busy, sleep=waited.append)
        assert waited == [1.0, 2.0, 4.0, 8.0, 16.0]


class TestStrangersWithoutAToken:
    def test_unknown_used_expired_tokens_and_wrong_names_cannot_be_told_apart(
        self, place: EnrolmentPlace
    ) -> None:
        used, expired, good = place.token("used"), place.token("late", lifetime=0.01), place.token("good")
        assert isinstance(ask(place, request(used.secret, used.subject.uri)), bytes)
        time.sleep(0.02)
        answers = [
            ask(place, request(new_secret())),
            ask(place, request(used.secret, used.subject.uri)),
            ask(place, request(expired.secret, expired.subject.uri)),
            ask(place, request(good.secret, "ssd://f/worker/other")),
            ask(place, request(good.secret, "ssd://f/operator/good")),
            ask(place, request(b"")),
        ]
        assert {reason(answer) for answer in answers} == {"enrolment_refused"}
        assert len({(answer.code(), answer.details()) for answer in answers}) == 1  # type: ignore[union-attr]
        assert place.outcome("unknown_token") == 2
        assert place.outcome("used_token") == place.outcome("expired_token") == 1
        assert place.outcome("wrong_name") == 2
        assert isinstance(ask(place, request(good.secret, good.subject.uri)), bytes)

    def test_requests_that_are_truncated_oversized_or_of_another_key_are_refused_and_burn_nothing(
        self, place: EnrolmentPlace
    ) -> None:
        token = place.token()
        good = make_request(new_key())
        builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
        other = builder.sign(rsa.generate_private_key(public_exponent=65537, key_size=2048), hashes.SHA256())
        for csr in (b"", good[:-1], good[:20], other.public_bytes(serialization.Encoding.DER), bytes(4097)):
            assert reason(ask(place, request(token.secret, csr=csr))) == "bad_certificate_request"
        assert place.trust.tokens()[0].used_at is None

    def test_messages_that_are_junk_or_too_large_are_refused_with_a_reason(
        self, place: EnrolmentPlace
    ) -> None:
        assert reason(ask(place, b"\xff\xff\xff junk")) == "malformed_message"
        assert reason(ask(place, bytes(MAX_MESSAGE_BYTES + 1))) == "message_too_large"
        assert reason(ask(place, bytes(1 << 20))) == "RESOURCE_EXHAUSTED"

    def test_nothing_but_enroll_is_offered(self, place: EnrolmentPlace) -> None:
        for method in (
            "/ssd_proto.v1.Renewal/Renew",
            "/ssd_proto.v1.Operator/Status",
            "/ssd_proto.v1.Federation/Attend",
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ):
            assert reason(ask(place, b"", method)) == "UNIMPLEMENTED"

    def test_connections_that_say_nothing_make_room_for_hosts_that_do(
        self, place: EnrolmentPlace, tmp_path: Path
    ) -> None:
        """Half-open ones, more than there may be, that come again as soon as they are cut off."""
        most = CONNECTIONS.at_once_per_host
        silent = [socket.create_connection(("127.0.0.1", place.port)) for _ in range(2 * most)]
        join(place, place.token(), tmp_path / "identity")
        assert place.cut() >= most
        ended = 0
        for each in silent:
            each.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                ended += each.recv(1) == b""
            each.close()
        assert ended >= most

    def test_handshakes_wait_their_turn(self, place: EnrolmentPlace, tmp_path: Path) -> None:
        """However fast they come, so many a second begin and the others wait outside."""
        context = ssl.create_default_context(cadata=place.authority.certificate.decode())
        done, seconds = 0, 2.0
        until = time.monotonic() + seconds

        def shake_hands() -> None:
            nonlocal done
            while time.monotonic() < until:
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection(("127.0.0.1", place.port), 5) as plain,
                    context.wrap_socket(plain, server_hostname="127.0.0.1"),
                ):
                    done += 1

        threads = [threading.Thread(target=shake_hands) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # A second's worth at once, those of the time itself, and those that were under way at its end.
        assert 0 < done <= CONNECTIONS.per_second * (1 + seconds) + len(threads)
        join(place, place.token(), tmp_path / "identity")

    def test_a_caller_that_speaks_tls_1_2_is_refused_before_its_token_is_looked_at(
        self, place: EnrolmentPlace, tmp_path: Path
    ) -> None:
        token = place.token()
        message = request(token.secret, token.subject.uri)
        path = "/ssd_proto.v1.Enrolment/Enroll"

        def answer(version: ssl.TLSVersion) -> bytes:
            return bare_http2.call(
                place.port, place.authority.certificate, None, tmp_path, path, message, version
            )

        refused = answer(ssl.TLSVersion.TLSv1_2)
        assert b"tls_version" in refused
        assert b"grpc-status\x0216" in refused, "UNAUTHENTICATED"
        assert place.refusals("tls_version") == 1
        assert place.trust.tokens()[0].used_at is None
        assert not place.trust.certificates()
        # Otherwise this would show no more than that the caller is broken.
        served = answer(ssl.TLSVersion.TLSv1_3)
        assert b"grpc-status\x010" in served
        assert b"BEGIN CERTIFICATE" in served

    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
    def test_older_versions_do_not_even_shake_hands(
        self, place: EnrolmentPlace, tmp_path: Path, version: ssl.TLSVersion
    ) -> None:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            bare_http2.call(place.port, place.authority.certificate, None, tmp_path, "/x", b"", version)

    def test_a_flood_is_turned_away_and_leaves_the_port_usable(
        self, place: EnrolmentPlace, tmp_path: Path
    ) -> None:
        calls, seconds = 1000, 0.0
        credentials = grpc.ssl_channel_credentials(place.authority.certificate)
        message = request(new_secret())
        began = time.monotonic()
        with grpc.secure_channel(f"localhost:{place.port}", credentials) as channel:
            method = channel.unary_unary("/ssd_proto.v1.Enrolment/Enroll")
            futures = [method.future(message, timeout=60) for _ in range(calls)]
            codes = [future.code() for future in futures]
        seconds = time.monotonic() - began
        assert set(codes) <= {
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.PERMISSION_DENIED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        }
        looked_at = place.outcome("unknown_token")
        assert looked_at == codes.count(grpc.StatusCode.PERMISSION_DENIED)
        assert looked_at <= PER_HOST.burst + PER_HOST.per_second * (seconds + 1)
        # The others were turned away: by us, or by gRPC's own limits before they came to us.
        assert 0 < place.outcome("too_often") <= codes.count(grpc.StatusCode.UNAVAILABLE)

        # An honest host, from the same address, waits its turn and gets in.
        pauses: list[float] = []

        def wait(pause: float) -> None:
            pauses.append(pause)
            time.sleep(min(pause, 3.0))

        enrol(place.token(), place.address, tmp_path / "identity", enroll, sleep=wait)
        assert IdentityStore(tmp_path / "identity").certificate.exists()


class TestImpostors:
    def test_another_authority_hears_nothing(self, place: EnrolmentPlace, tmp_path: Path) -> None:
        stranger = new_authority()
        recorder = RecordingServer(tmp_path, credential(stranger), stranger.certificate)
        token = place.token()
        with pytest.raises(EnrolmentRefused, match="Nothing was sent"):
            join(place, token, tmp_path / "identity", recorder.address)
        recorder.close()
        assert recorder.handshakes == 1
        assert recorder.heard == b""
        assert not (tmp_path / "identity").exists()

    def test_who_shows_the_right_authority_without_a_certificate_of_it_hears_nothing(
        self, place: EnrolmentPlace, tmp_path: Path
    ) -> None:
        stranger = new_authority()
        recorder = RecordingServer(tmp_path, credential(stranger), place.authority.certificate)
        with pytest.raises(EnrolmentRefused, match="Nothing was sent"):
            join(place, place.token(), tmp_path / "identity", recorder.address)
        recorder.close()
        assert recorder.heard == b""

    def test_a_workers_certificate_of_the_right_authority_is_no_coordinators(
        self, place: EnrolmentPlace, tmp_path: Path
    ) -> None:
        now = dt.datetime.now(dt.UTC)
        worker = issue(
            place.authority, Subject("f", Role.WORKER, "w9"), days=1, now=now, hosts=("127.0.0.1",)
        )
        recorder = RecordingServer(tmp_path, worker, place.authority.certificate)
        with pytest.raises(EnrolmentRefused, match="Nothing was sent"):
            join(place, place.token(), tmp_path / "identity", recorder.address)
        recorder.close()
        assert recorder.heard == b""

    def test_the_right_coordinator_by_another_name_is_told_apart(self, tmp_path: Path) -> None:
        place = EnrolmentPlace(tmp_path, hosts=("fed.example.org",))
        token = place.token()
        with pytest.raises(EnrolmentRefused, match="--server-name"):
            enrol(token, place.address, tmp_path / "identity", enroll, server_name="other.example.org")
        enrol(token, place.address, tmp_path / "identity", enroll, server_name="fed.example.org")
        assert IdentityStore(tmp_path / "identity").certificate.exists()
        place.close()

    def test_nobody_or_no_tls_is_said_as_such(self, place: EnrolmentPlace, tmp_path: Path) -> None:
        with pytest.raises(EnrolmentRefused, match=r"enrolment\] listen"):
            join(place, place.token(), tmp_path / "identity", Address(host="127.0.0.1", port=1))

    def test_a_certificate_for_somebody_else_or_of_another_key_is_not_kept(
        self, place: EnrolmentPlace, tmp_path: Path
    ) -> None:
        now = dt.datetime.now(dt.UTC)
        token = place.token()
        answers = [
            issue(
                place.authority,
                Subject("f", Role.WORKER, "other"),
                days=1,
                now=now,
                public_key=new_key().public_key(),
            ),
            issue(place.authority, token.subject, days=1, now=now, public_key=new_key().public_key()),
            issue(new_authority(), token.subject, days=1, now=now, public_key=new_key().public_key()),
            Credential(b"junk", b""),
        ]
        for answer in answers:
            with pytest.raises(EnrolmentRefused, match="cannot be used"):
                enrol(token, place.address, tmp_path / "identity", lambda *_, a=answer: a.certificate)
        assert not (tmp_path / "identity" / "worker.pem").exists()
        assert not (tmp_path / "identity" / "ca.pem").exists()


def test_calls_at_once_with_one_token_make_one_certificate(place: EnrolmentPlace) -> None:
    token = place.token()
    answers: list[grpc.RpcError | bytes] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(place, request(token.secret)))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(answer, bytes) for answer in answers) == 1
    assert len(place.trust.certificates()) == 1
