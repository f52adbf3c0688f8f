"""What a worker says when it cannot talk to its coordinator, met with real handshakes on this machine."""

from __future__ import annotations

import asyncio
import datetime as dt
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from processes.pki import Pki
from ssd.trust.authority import Credential, issue
from ssd.trust.identity_store import IdentityStore
from ssd.trust.names import Role, Subject
from worker.errors import IdentityUnusable, LinkBroken
from worker.rpc.channels import UNUSABLE, Channels

NOW = dt.datetime.now(dt.UTC)
UNAVAILABLE = LinkBroken("unavailable", "failed to connect to all addresses")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that offers nothing; its address."""
    started = []

    def start(credentials: grpc.ServerCredentials | None, address: str = "127.0.0.1:0") -> str:
        server = grpc.server(futures.ThreadPoolExecutor(1))
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
        server.start()
        started.append(server)
        return address if address.startswith("unix:") else f"127.0.0.1:{port}"

    yield start
    for server in started:
        server.stop(0).wait()


def serving(pki: Pki, own: Credential, trusts: bytes = b"") -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(own.key, own.certificate)], trusts or pki.authority, require_client_auth=True
    )


def channels(folder: Path | None, server_name: str = "") -> Channels:
    return Channels(
        folder=folder,
        server_name=server_name,
        max_message_bytes=1 << 20,
        now=lambda: dt.datetime.now(dt.UTC),
    )


def explained(used: Channels, target: str) -> LinkBroken:
    return asyncio.run(used.explained(target, UNAVAILABLE))


def test_a_coordinator_that_takes_us_needs_no_explanation(pki: Pki, serve: Serve) -> None:
    target = serve(pki.server_credentials())
    assert explained(channels(pki.worker("w")), target) is UNAVAILABLE


def test_nobody_there_is_no_matter_of_tls(pki: Pki) -> None:
    assert explained(channels(pki.worker("w")), "127.0.0.1:1") is UNAVAILABLE
    assert explained(channels(pki.worker("w")), "unix:/nonexistent/socket") is UNAVAILABLE


def test_a_coordinator_without_tls(pki: Pki, serve: Serve) -> None:
    found = explained(channels(pki.worker("w")), serve(None))
    assert found.reason == "speaks_no_tls"
    assert "without --insecure" in found.detail


def test_a_coordinator_with_tls_that_is_spoken_to_without(pki: Pki, serve: Serve) -> None:
    found = explained(channels(None), serve(pki.server_credentials()))
    assert found.reason == "speaks_tls"
    assert "leave out --insecure" in found.detail
    assert explained(channels(None), serve(None)) is UNAVAILABLE


def test_a_coordinator_of_another_authority(pki: Pki, serve: Serve, tmp_path: Path) -> None:
    found = explained(channels(pki.worker("w")), serve(Pki(tmp_path).server_credentials()))
    assert found.reason == "wrong_authority"
    assert "right federation" in found.detail


def test_a_coordinator_under_another_name(pki: Pki, serve: Serve) -> None:
    target = serve(pki.server_credentials())
    found = explained(channels(pki.worker("w"), "coordinator.example"), target)
    assert found.reason == "name_mismatch"
    assert "coordinator.example" in found.detail


def test_a_workers_certificate_does_not_make_a_coordinator(pki: Pki, serve: Serve) -> None:
    own = pki.issued(Role.WORKER, "localhost")
    assert explained(channels(pki.worker("w"), "localhost"), serve(serving(pki, own))).reason in {
        "wrong_authority",
        "name_mismatch",
    }


@pytest.mark.parametrize("server_name", ["", "localhost", "w2"])
def test_nothing_is_sent_to_a_worker_that_serves_with_its_own_certificate(
    pki: Pki, serve: Serve, server_name: str
) -> None:
    """Its certificate is of the right authority; the channel itself must refuse it, even one with the right host."""
    subject = Subject("test", Role.WORKER, "w2")
    hosts = ("127.0.0.1", "localhost", "w2")
    named = issue(pki._authority, subject, days=1, now=NOW, hosts=hosts)

    async def answer(target: str) -> grpc.StatusCode:
        async with channels(pki.worker("w"), server_name).open(target) as channel:
            try:
                await channel.unary_unary("/x")(b"", timeout=20)
            except grpc.aio.AioRpcError as error:
                return error.code()
        raise AssertionError("the call was answered")

    for own in (pki.issued(Role.WORKER, "w2"), named):
        assert asyncio.run(answer(serve(serving(pki, own)))) is grpc.StatusCode.UNAVAILABLE
    if server_name != "w2":
        # Otherwise the lines above would show no more than that the call cannot be made.
        assert asyncio.run(answer(serve(pki.server_credentials()))) is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("days", "reason"), [(-2, "certificate_expired"), (2, "certificate_not_yet_valid")], ids=["old", "new"]
)
def test_a_coordinator_whose_certificate_is_not_valid_now(
    pki: Pki, serve: Serve, days: int, reason: str
) -> None:
    own = pki.issued_at(Role.COORDINATOR, "coordinator", NOW + dt.timedelta(days=days))
    found = explained(channels(pki.worker("w")), serve(serving(pki, own)))
    assert found.reason == reason
    assert "clock" in found.detail


def test_a_coordinator_that_does_not_take_us(pki: Pki, serve: Serve, tmp_path: Path) -> None:
    target = serve(serving(pki, pki.issued(Role.COORDINATOR, "c"), Pki(tmp_path).authority))
    found = explained(channels(pki.worker("w")), target)
    assert found.reason == "certificate_not_accepted"
    assert "worker.pem" in found.detail


def test_over_a_unix_socket_the_coordinator_is_called_localhost(
    pki: Pki, serve: Serve, tmp_path: Path
) -> None:
    target = serve(pki.server_credentials(), f"unix:{tmp_path}/s")
    assert explained(channels(pki.worker("w")), target) is UNAVAILABLE
    assert explained(channels(pki.worker("w"), "other"), target).reason == "name_mismatch"

    async def reaches() -> None:
        channel = channels(pki.worker("w")).open(target)
        await asyncio.wait_for(channel.channel_ready(), 20)
        await channel.close()

    asyncio.run(reaches())


def test_somebody_who_says_nothing_holds_nobody_up(pki: Pki) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        found: list[LinkBroken] = []
        asking = threading.Thread(target=lambda: found.append(explained(channels(pki.worker("w")), target)))
        asking.start()
        asking.join(30)
    assert found == [UNAVAILABLE]


def test_no_identity_yet_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(IdentityUnusable, match=r"no such file.*ssd-worker enroll"):
        channels(tmp_path).identity()


def test_an_expired_identity_is_not_even_tried(pki: Pki) -> None:
    folder = pki.worker("w")
    late = Channels(folder=folder, max_message_bytes=1 << 20, now=lambda: NOW + dt.timedelta(days=60))
    with pytest.raises(IdentityUnusable, match=r"pem: it expired.*enroll"):
        late.identity()
    with pytest.raises(LinkBroken, match="expired") as caught:
        late.open("127.0.0.1:1")
    assert caught.value.reason == UNUSABLE


def test_a_renewed_certificate_is_noticed(pki: Pki) -> None:
    used = channels(pki.worker("renewed"))
    before = used.stamp()
    assert used.stamp() == before
    pki.worker("renewed")
    assert used.stamp() != before


def test_a_renewal_that_died_between_certificate_and_key_is_finished_at_the_next_start(
    pki: Pki, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new certificate lies beside the old key; the new key waits."""

    class Death(BaseException):
        """Stands for the end of the process."""

    def die(_: IdentityStore) -> None:
        raise Death

    folder = shutil.copytree(pki.worker("w"), tmp_path / "identity")
    store = IdentityStore(folder)
    key = store.key_to_be()
    renewed = issue(
        pki._authority, Subject("test", Role.WORKER, "w"), days=1, now=NOW, public_key=key.public_key()
    )
    monkeypatch.setattr(IdentityStore, "recover", die)
    with pytest.raises(Death):
        store.install(renewed.certificate)
    monkeypatch.undo()
    assert not Credential(store.certificate.read_bytes(), store.key.read_bytes()).matches()

    restarted = channels(folder)
    found = restarted.identity()
    assert found is not None
    assert found.credential.certificate == renewed.certificate
    assert found.credential.matches()
    assert not store.waiting_key.exists()
    target = serve(pki.server_credentials())
    assert explained(restarted, target) is UNAVAILABLE, "it connects with the new pair"
