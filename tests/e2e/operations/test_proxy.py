"""Proxies: a coordinator on this machine is never called through one, another one is through a real CONNECT proxy."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli.main import main as coordinator_main
from processes.federation import Federation
from processes.ports import free_port
from worker.cli.main import main as work

pytestmark = pytest.mark.e2e
SETTINGS: dict[str, Any] = {
    "method.name": "synthetic", "method.config": {"parameters": 100}, "run.clients": ["a", "b"], "run.rounds": 2,
    "run.when_done": "serve", "round.cohort_size": 2,
}  # fmt: skip
DEAD = "http://127.0.0.1:9"


class Proxy:
    """An HTTP CONNECT proxy that leads every name to this machine, and keeps what it saw."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listening.getsockname()[1]}"
        self.asked: list[bytes] = []
        self.seen = bytearray()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._lead, args=(client,), daemon=True).start()

    def _lead(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(4096)
            if not piece:
                return
            head += piece
        words = head.split(b"\r\n")[0].split()
        self.asked.append(words[1])
        port = int(words[1].rpartition(b":")[2])
        try:
            there = socket.create_connection(("127.0.0.1", port))
        except OSError:
            client.close()
            return
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        threading.Thread(target=self._pump, args=(client, there), daemon=True).start()
        self._pump(there, client)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while piece := source.recv(65536):
                self.seen += piece
                sink.sendall(piece)
        except OSError:
            pass
        finally:
            sink.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.listening.close()


@pytest.mark.parametrize("insecure", [False, True])
def test_a_coordinator_on_this_machine_is_called_directly_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: Proxy, insecure: bool
) -> None:
    with Federation(tmp_path, insecure=insecure, **SETTINGS) as federation:
        federation.start_coordinator()
        with monkeypatch.context() as environment:  # the worker's, not that of the test's own calls
            for name in ("http_proxy", "https_proxy", "grpc_proxy"):
                environment.setenv(name, f"http://{proxy.address}")
            federation.start_worker("w1", ["a", "b"])
        federation.until(lambda: federation.status().version.number == 2, "both rounds are committed")
    assert proxy.asked == []


def test_another_machine_is_reached_through_the_proxy_that_is_named_and_nothing_is_readable_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: Proxy
) -> None:
    with Federation(tmp_path, **SETTINGS) as federation:
        federation.start_coordinator()
        elsewhere = f"coordinator.invalid:{federation.port}"
        config = {"worker.coordinator": elsewhere, "transport.server_name": "localhost",
                  "transport.proxy": f"http://{proxy.address}"}  # fmt: skip
        with monkeypatch.context() as environment:
            environment.setenv("https_proxy", DEAD)  # the setting counts
            federation.start_worker("w1-with-a-long-name", ["a", "b"], config=config)
        federation.until(lambda: federation.status().version.number == 2, "both rounds are committed")
    assert set(proxy.asked) == {elsewhere.encode()}
    assert b"w1-with-a-long-name" not in proxy.seen
    assert b"Attend" not in proxy.seen


def test_a_proxy_that_is_switched_off_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: Proxy
) -> None:
    with Federation(tmp_path, **SETTINGS) as federation:
        federation.start_coordinator()
        config = {"worker.coordinator": f"coordinator.invalid:{free_port()}", "transport.proxy": "off"}
        with monkeypatch.context() as environment:
            environment.setenv("https_proxy", f"http://{proxy.address}")
            worker = federation.start_worker("w1", ["a", "b"], config=config)
        federation.until(lambda: "connection_failed" in worker.log.read_text() or "link_lost" in worker.log.read_text(),
                         "the worker finds nobody")  # fmt: skip
    assert proxy.asked == []


def operate(arguments: list[str]) -> object:
    """The exit code of the coordinator's program, in this process."""
    with pytest.raises(SystemExit) as ended:
        coordinator_main(arguments)
    return ended.value.code


def test_a_host_behind_a_proxy_enrols_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], proxy: Proxy
) -> None:
    monkeypatch.chdir(tmp_path)
    assert operate(["ca", "init", "--out", "pki", "--host", "localhost"]) == 0
    with Federation(tmp_path, insecure=True, **SETTINGS) as federation:
        enrolment = free_port()
        federation.config["transport"] = {"insecure": False}
        federation.config["enrolment"] = {"listen": f"127.0.0.1:{enrolment}"}
        federation.start_coordinator()
        capsys.readouterr()
        assert operate(["ca", "token", "--worker", "w1", "--config", "coordinator.toml"]) == 0
        token = capsys.readouterr().out.strip()
        arguments = ["enroll", "--token", token, "--coordinator", f"coordinator.invalid:{enrolment}",
                     "--server-name", "localhost", "--state-dir", str(tmp_path / "w")]  # fmt: skip
        with monkeypatch.context() as environment:
            environment.setenv("SSD_TRANSPORT_PROXY", f"http://127.0.0.1:{free_port()}")
            assert work(arguments) == 3
            assert "through the proxy 127.0.0.1:" in capsys.readouterr().err
            environment.setenv("SSD_TRANSPORT_PROXY", f"http://{proxy.address}")
            assert work(arguments) == 0, capsys.readouterr().err
    assert (tmp_path / "w" / "identity" / "worker.pem").is_file()
    assert set(proxy.asked) == {f"coordinator.invalid:{enrolment}".encode()}
    assert token.encode() not in proxy.seen
