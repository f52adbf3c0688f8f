"""The HTTP endpoints, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from coordinator.errors import PortUnavailable
from coordinator.runtime.listener import Bounds
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.web.http import CONNECTIONS, HttpServer, create_app, refuse_shown_tokens
from ssd.daemon.address import Address
from ssd.trust.authority import create_authority, issue
from ssd.trust.names import Role, Subject

T = TypeVar("T")
ANY_PORT = Address(host="127.0.0.1")
NOW = dt.datetime.now(dt.UTC)


def run(work: Callable[[], Awaitable[T]]) -> T:
    async def within() -> T:
        return await asyncio.wait_for(work(), 20)

    return asyncio.run(within())


@asynccontextmanager
async def serving(reasons: list[str]) -> AsyncIterator[str]:
    """A server that is not ready for `reasons`; gives its URL."""
    server = HttpServer(create_app(CoordinatorMetrics().render, lambda: reasons))
    address = await server.start(ANY_PORT)
    assert address.port != 0
    try:
        yield f"http://{address}"
    finally:
        await server.stop()
        await server.stop()


def test_metrics_are_served_in_prometheus_text() -> None:
    async def work() -> None:
        async with (
            serving([]) as url,
            aiohttp.ClientSession() as client,
            client.get(f"{url}/metrics") as reply,
        ):
            assert reply.status == 200
            assert reply.headers["Content-Type"].startswith("text/plain; version=")
            assert "ssd_coordinator_model_version 0.0" in await reply.text()

    run(work)


def test_ready_or_not_and_why() -> None:
    async def work() -> None:
        reasons: list[str] = []
        async with serving(reasons) as url, aiohttp.ClientSession() as client:
            async with client.get(f"{url}/readyz") as reply:
                assert (reply.status, await reply.json()) == (200, {"ready": True, "reasons": []})
            reasons.append("the disk is full")
            async with client.get(f"{url}/readyz") as reply:
                assert (reply.status, await reply.json()) == (503, {"ready": False, "reasons": reasons})
            async with client.get(f"{url}/livez") as reply:
                assert (reply.status, await reply.json()) == (200, {"live": True})

    run(work)


def test_nothing_else_is_served_and_nothing_can_be_changed() -> None:
    async def work() -> None:
        async with serving([]) as url, aiohttp.ClientSession() as client:
            for method, path, status in [
                ("GET", "/", 404),
                ("GET", "/metrics/x", 404),
                ("POST", "/metrics", 405),
                ("DELETE", "/readyz", 405),
            ]:
                async with client.request(method, url + path) as reply:
                    assert reply.status == status, path

    run(work)


def test_a_slow_page_does_not_hold_up_the_others() -> None:
    """Rendering happens in a thread."""

    async def work() -> None:
        started, release = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def render() -> bytes:
            loop.call_soon_threadsafe(started.set)
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10)
            return b""

        server = HttpServer(create_app(render, list))
        url = f"http://{await server.start(ANY_PORT)}"
        async with aiohttp.ClientSession() as client:
            page = asyncio.create_task(client.get(f"{url}/metrics"))
            await started.wait()
            async with client.get(f"{url}/livez") as reply:
                assert reply.status == 200
            release.set()
            (await page).release()
        await server.stop()

    run(work)


def test_an_address_in_use_says_what_to_do() -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            server = HttpServer(create_app(bytes, list))
            with pytest.raises(PortUnavailable, match='http_listen = ""'):
                await server.start(Address(host="127.0.0.1", port=taken.getsockname()[1]))

    run(work)


def test_a_unix_socket_is_served_even_over_a_dead_one(tmp_path: Path) -> None:
    async def work() -> None:
        path = str(tmp_path / "http.sock")
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        server = HttpServer(create_app(bytes, list))
        assert await server.start(Address(path=path)) == Address(path=path)
        connector = aiohttp.UnixConnector(path)
        async with (
            aiohttp.ClientSession(connector=connector) as client,
            client.get("http://coordinator/livez") as reply,
        ):
            assert reply.status == 200
        await server.stop()

    run(work)


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    async def work() -> None:
        path = tmp_path / "notes.txt"
        path.write_text("precious")
        with pytest.raises(PortUnavailable):
            await HttpServer(create_app(bytes, list)).start(Address(path=str(path)))
        assert path.read_text() == "precious"

    run(work)


@pytest.mark.parametrize("header", ["Authorization", "Cookie", "authorization"])
@pytest.mark.parametrize(
    ("peer", "secure", "status"),
    [
        (("192.0.2.7", 5000), False, 403),
        (("::ffff:192.0.2.7", 5000, 0, 0), False, 403),
        (("fe80::1%eth0", 5000, 0, 2), False, 403),
        (("192.0.2.7", 5000), True, 200),
        (("127.0.0.1", 5000), False, 200),
        (("::1", 5000, 0, 0), False, 200),
        (("::ffff:127.0.0.1", 5000, 0, 0), False, 200),
        ("", False, 200),
    ],
)
def test_a_token_in_the_clear_from_another_machine_is_refused(
    header: str, peer: object, secure: bool, status: int
) -> None:
    async def work() -> None:
        for headers, expected in (({header: "Bearer x"}, status), ({}, 200)):
            transport = Mock()
            transport.get_extra_info.side_effect = {"peername": peer}.get
            request = make_mocked_request("GET", "/livez", headers=headers, transport=transport)
            request = request.clone(scheme="https" if secure else "http")
            try:
                reply = await refuse_shown_tokens(request, answer)
            except web.HTTPException as refusal:
                reply = refusal
            assert reply.status == expected
            assert reply.status == 200 or "consider it known" in (reply.text or "")

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response()

    run(work)


def test_every_page_is_behind_the_guard() -> None:
    assert refuse_shown_tokens in create_app(CoordinatorMetrics().render, list).middlewares


def slow(**changes: Any) -> Bounds:
    """Bounds of a test's length."""
    return dataclasses.replace(CONNECTIONS, **changes)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /metr",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n",
        b"POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
    ],
    ids=["nothing", "half a line", "headers without end", "a body that never comes"],
)
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_request_that_never_arrives_is_not_waited_for(said: bytes, secure: bool, tmp_path: Path) -> None:
    async def work() -> None:
        tls = https(tmp_path) if secure else None
        server = HttpServer(create_app(bytes, list), tls, bounds=slow(seconds=0.3))
        address = await server.start(ANY_PORT)
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        # Over HTTPS, also one that never begins to shake hands.
        how: Any = trusting if secure and said else None
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=how)
        writer.write(said)
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        writer.close()
        await server.stop()

    run(work)


def https(folder: Path) -> ssl.SSLContext:
    authority = create_authority("f", days=1, now=NOW)
    own = issue(
        authority, Subject("f", Role.COORDINATOR, "coordinator"), days=1, now=NOW, hosts=("127.0.0.1",)
    )
    (folder / "own.pem").write_bytes(own.certificate + own.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "own.pem")
    return context


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_pages_are_served_while_others_only_hold_connections(secure: bool, tmp_path: Path) -> None:
    """More of them than there may be: each new one takes the place of the oldest."""

    async def work() -> None:
        cut: list[None] = []
        server = HttpServer(
            create_app(bytes, list),
            https(tmp_path) if secure else None,
            lambda: cut.append(None),
            slow(at_once=20, at_once_per_host=20, per_second=1000.0),
        )
        address = await server.start(ANY_PORT)
        holding = [await asyncio.open_connection(address.host, address.port) for _ in range(100)]
        async with aiohttp.ClientSession() as client:
            for _ in range(3):
                url = f"http{'s' * secure}://{address}/livez"
                async with client.get(url, ssl=False) as reply:
                    assert (reply.status, reply.headers["Connection"]) == (200, "close")
        assert len(cut) >= 80
        for _, writer in holding:
            writer.close()
        await server.stop()

    run(work)
