"""Certificates of running daemons: renewed under way, wrong, missing; Unix sockets; and doing without, if typed."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from processes.federation import ROOT, Federation
from processes.pki import Pki
from ssd.trust.authority import Credential
from ssd.trust.names import Role

pytestmark = pytest.mark.e2e
CLIENTS = [f"client-{index:03d}" for index in range(4)]
SETTINGS = {
    "run.clients": CLIENTS,
    "run.rounds": 2,
    "round.cohort_size": 4,
    "method.config": {"parameters": 5000},
}
RELOADS = "ssd_coordinator_certificate_reloads_total"


def shown(port: int) -> str:
    """The certificate a new connection is shown, PEM."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), 20) as plain,
        context.wrap_socket(plain) as secure,
    ):
        der = secure.getpeercert(binary_form=True)
    assert der is not None
    return ssl.DER_cert_to_PEM_cert(der)


def put(pki: Pki, own: Credential) -> None:
    (pki.folder / "coordinator.pem").write_bytes(own.certificate)
    (pki.folder / "coordinator.key").write_bytes(own.key)


def test_a_new_certificate_is_taken_up_on_sighup_and_a_bad_one_is_not(tmp_path: Path) -> None:
    settings = {**SETTINGS, "run.rounds": 10_000, "round.retry_seconds": 0.05}
    with Federation(tmp_path, **settings) as federation:
        coordinator = federation.start_coordinator()
        worker = federation.start_worker("w", CLIENTS)
        pki = federation.pki
        assert pki is not None
        federation.until(lambda: federation.status().version.number >= 1, "a round commits")
        first = shown(federation.port)

        def hang_up(event: str, count: int) -> None:
            coordinator.process.send_signal(signal.SIGHUP)
            federation.until(lambda: len(coordinator.events(event)) == count, f"{event} {count}")

        second = pki.issued(Role.COORDINATOR, "coordinator")
        put(pki, second)
        assert shown(federation.port) == first, "nothing changes before it is told"
        hang_up("certificate_reloaded", 1)
        renewed = shown(federation.port)
        assert renewed == second.certificate.decode() != first

        third = pki.issued(Role.COORDINATOR, "coordinator")
        bad = {
            "no certificate": Credential(b"nonsense", third.key),
            "another's key": Credential(third.certificate, second.key),
            "not a coordinator's": pki.issued(Role.WORKER, "coordinator"),
            "of another authority": Pki(tmp_path / "other").issued(Role.COORDINATOR, "coordinator"),
        }
        for count, (why, own) in enumerate(bad.items(), start=1):
            put(pki, own)
            hang_up("certificate_not_reloaded", count)
            assert shown(federation.port) == renewed, why
        assert all(each["detail"] for each in coordinator.events("certificate_not_reloaded"))
        assert federation.metric(RELOADS, outcome="taken") == 1
        assert federation.metric(RELOADS, outcome="kept_old") == len(bad)
        assert federation.metric("ssd_coordinator_certificate_expiry_timestamp_seconds") > 1e9

        # A new authority of the same name, with everything made anew: old certificates stop to count.
        again = Pki(pki.folder)
        hang_up("certificate_reloaded", 2)
        federation.pki = again
        assert federation.status().version.number >= 1
        assert not worker.events("link_lost"), "what was connected was not disturbed"
        before = federation.status().version.number
        federation.until(lambda: federation.status().version.number > before, "the worker goes on")


def test_a_worker_takes_up_new_files_on_its_next_connection(tmp_path: Path) -> None:
    with Federation(tmp_path, **{**SETTINGS, "run.rounds": 10_000}) as federation:
        coordinator = federation.start_coordinator()
        worker = federation.start_worker("w", CLIENTS)
        assert federation.pki is not None
        federation.until(lambda: federation.status().version.number >= 1, "a round commits")
        folder = federation.pki.folder / "workers" / "w"
        whole = (folder / "worker.pem").read_bytes()
        (folder / "worker.pem").write_bytes(b"half of a cert")
        coordinator.kill()
        federation.start_coordinator()
        federation.until(
            lambda: [each for each in worker.events("link_lost") if each["reason"] == "identity_unusable"],
            "the worker says what is wrong",
        )
        (folder / "worker.pem").write_bytes(whole)
        federation.until(lambda: federation.status().connected_clients == 4, "it is back without a restart")


def test_everything_works_over_a_unix_socket(tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/c.sock"
    settings = {**SETTINGS, "coordinator.listen": listen, "run.when_done": "serve"}
    with Federation(tmp_path, **settings) as federation:
        federation.start_coordinator()
        federation.start_worker("w", CLIENTS, config={"worker.coordinator": listen})
        federation.address = listen
        federation.until(lambda: verb(federation, "status")[1].get("phase") == "finished", "the run ends")
        assert verb(federation, "status")[1]["version"] == 2


def verb(federation: Federation, name: str) -> tuple[int, dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "coordinator", name, "--format", "json", *federation.verb_arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"},
    )
    return done.returncode, json.loads(done.stdout) if done.returncode == 0 else {}


def test_a_worker_that_cannot_be_let_in_says_why(tmp_path: Path) -> None:
    with Federation(tmp_path, **{**SETTINGS, "run.when_done": "serve"}) as federation:
        federation.start_coordinator()
        assert federation.pki is not None
        nobody = federation.start_worker(
            "nobody", [], config={"data.clients": CLIENTS, "transport.identity_dir": "x"}
        )
        assert nobody.wait() == 2
        assert "x/ca.pem: no such file" in (said := nobody.log.read_text())
        assert "run `ssd-worker enroll`" in said

        other = federation.start_worker(
            "other", CLIENTS, config={"transport.identity_dir": str(federation.pki.worker("somebody"))}
        )
        assert other.wait() == 2
        assert "'somebody'" in other.log.read_text()

        lost = federation.start_worker(
            "lost",
            CLIENTS,
            config={"transport.identity_dir": str(Pki(tmp_path / "elsewhere").worker("lost"))},
        )
        renamed = federation.start_worker("renamed", CLIENTS, config={"transport.server_name": "elsewhere"})
        plain = federation.start_worker("plain", CLIENTS, config={"transport.insecure": True})
        for worker, reason in ((lost, "wrong_authority"), (renamed, "name_mismatch"), (plain, "speaks_tls")):
            event = federation.until(lambda worker=worker: worker.events("link_lost"), "it says why")[0]
            assert (event["reason"], bool(event["detail"])) == (reason, True)
        assert federation.status().workers == []


def test_without_tls_it_works_and_is_said(tmp_path: Path) -> None:
    with Federation(tmp_path, insecure=True, **{**SETTINGS, "run.when_done": "exit"}) as federation:
        coordinator = federation.start_coordinator()
        worker = federation.start_worker("w", CLIENTS)
        assert federation.finish() == 0
        assert [each["level"] for each in coordinator.events("insecure")] == ["warning"]
        assert worker.events("insecure")


def test_a_reload_takes_up_what_serves_https_and_the_operators_token(tmp_path: Path) -> None:
    with Federation(tmp_path, **{**SETTINGS, "run.when_done": "serve"}) as federation:
        pki = federation.pki
        assert pki is not None
        files = {
            "coordinator.http_certificate": str(pki.folder / "coordinator.pem"),
            "coordinator.http_key": str(pki.folder / "coordinator.key"),
            "coordinator.http_token_file": str(token_file(tmp_path, "first")),
        }
        coordinator = federation.start_coordinator(**files)
        context = ssl.create_default_context(cadata=pki.authority.decode())
        url = f"https://127.0.0.1:{federation.http_port}/livez"
        with urllib.request.urlopen(url, timeout=20, context=context) as reply:
            assert reply.status == 200

        def answers(token: str) -> int:
            asked = urllib.request.Request(
                url.replace("livez", "api/v1/clients"), headers={"Authorization": f"Bearer {token * 8}"}
            )
            try:
                with urllib.request.urlopen(asked, timeout=20, context=context) as reply:
                    return reply.status
            except urllib.error.HTTPError as refused:
                return refused.code

        token_file(tmp_path, "second")
        assert (answers("first"), answers("second")) == (200, 401)
        new = pki.issued(Role.COORDINATOR, "coordinator")
        put(pki, new)
        coordinator.process.send_signal(signal.SIGHUP)
        federation.until(lambda: len(coordinator.events("certificate_reloaded")) == 2, "both are taken up")
        assert shown(federation.http_port) == new.certificate.decode()
        assert (answers("first"), answers("second")) == (401, 200)
        token_file(tmp_path, "third")
        # Half of a pair must not take the place of half of the good one.
        (pki.folder / "coordinator.pem").write_bytes(pki.issued(Role.COORDINATOR, "coordinator").certificate)
        coordinator.process.send_signal(signal.SIGHUP)
        federation.until(lambda: len(coordinator.events("certificate_not_reloaded")) == 2, "none is taken up")
        assert shown(federation.http_port) == new.certificate.decode()
        federation.until(
            lambda: len(coordinator.events("token_reloaded")) == 2, "the token is taken up all the same"
        )
        assert (answers("second"), answers("third")) == (401, 200)
        with urllib.request.urlopen(url, timeout=20, context=context) as reply:
            assert reply.status == 200


def token_file(folder: Path, word: str) -> Path:
    """The operator's token, in its file: the word eight times."""
    path = folder / "token"
    path.touch(0o600)
    path.write_text(word * 8)
    return path
