"""The HTTP side: /metrics for Prometheus, /livez and /readyz for whoever supervises the process, the status page.

`/livez` answers as long as the event loop runs. `/readyz` asks a function: an empty answer is ready (200), reasons
are not (503). Nothing in this module asks for a token or changes anything (`coordinator.web.api` does), and a token
that comes in the clear from another machine is answered with a refusal, because whoever sends one has just shown it
to the network.

A connection is for one request and has little time for all of it, so that nobody keeps one by being slow.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from coordinator.errors import PortUnavailable
from coordinator.runtime.listener import Bounds, Door
from coordinator.telemetry.metrics import CONTENT_TYPE
from coordinator.web.access import is_this_machine
from coordinator.web.headers import protect
from ssd.daemon.address import Address

SHUTDOWN_SECONDS = 2.0
CONNECTIONS = Bounds(at_once=64, at_once_per_host=32, per_second=100.0, seconds=15.0)
HANDSHAKE_SECONDS = 10.0


def create_app(
    render: Callable[[], bytes],
    not_ready: Callable[[], Sequence[str]],
    *parts: Callable[[web.Application], None],
) -> web.Application:
    """The application.

    Args:
        render: the exposition text of all metrics; called in a thread.
        not_ready: why the daemon is not ready, one sentence each; empty if it is. Must not block.
        parts: each adds what else is served.
    """

    async def metrics(_: web.Request) -> web.Response:
        body = await asyncio.to_thread(render)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def readyz(_: web.Request) -> web.Response:
        reasons = list(not_ready())
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    app = web.Application(client_max_size=1024, middlewares=[refuse_shown_tokens])
    app.on_response_prepare.append(_one_request)
    app.on_response_prepare.append(protect)
    app.add_routes([web.get("/metrics", metrics), web.get("/livez", livez), web.get("/readyz", readyz)])
    for add in parts:
        add(app)
    return app


@web.middleware
async def refuse_shown_tokens(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """403 for a request from another machine that carries a credential in the clear."""
    carries = "Authorization" in request.headers or "Cookie" in request.headers
    if carries and not request.secure and not is_this_machine(request):
        raise web.HTTPForbidden(
            text="a token was sent in the clear: consider it known, replace it, and come over HTTPS"
            " (coordinator.http_certificate) or from this machine\n"
        )
    return await handler(request)


async def _one_request(_: web.Request, response: web.StreamResponse) -> None:
    response.force_close()
    response.headers["Connection"] = "close"


class _Noticing(asyncio.Protocol):
    """Another protocol's events, and word of its end."""

    def __init__(self, inner: asyncio.Protocol, ended: asyncio.Future[None]) -> None:
        self._ended = ended
        self.connection_made = inner.connection_made  # type: ignore[method-assign]
        self.data_received = inner.data_received  # type: ignore[method-assign]
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]
        self._inner = inner

    def connection_lost(self, exc: Exception | None) -> None:
        """The last event."""
        self._inner.connection_lost(exc)
        if not self._ended.done():
            self._ended.set_result(None)


class HttpServer:
    """Serves an application on one address.

    Args:
        app: what to serve.
        tls: None: plain HTTP.
        on_cut: told of each connection that made room for a newer one.
        bounds: what strangers may take together.
    """

    def __init__(
        self,
        app: web.Application,
        tls: ssl.SSLContext | None = None,
        on_cut: Callable[[], None] = lambda: None,
        bounds: Bounds = CONNECTIONS,
    ) -> None:
        self._tls = tls
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        self._door = Door(bounds, self._serve, on_cut)

    async def start(self, address: Address) -> Address:
        """Listen, and say where (the port, if any free one was asked for).

        Raises:
            PortUnavailable: the address cannot be bound.
        """
        await self._runner.setup()
        if address.path:
            _remove_stale_socket(address.path)
        try:
            return await self._door.open(address)
        except OSError as error:
            await self._runner.cleanup()
            raise PortUnavailable(
                f"http_listen {address} cannot be bound ({error.strerror or error}): stop what uses it, choose "
                'another address, or switch it off with http_listen = ""'
            ) from error

    async def stop(self) -> None:
        """Stop listening and let running answers finish; idempotent."""
        await self._door.shut()
        await self._runner.cleanup()
        await self._door.close()

    async def _serve(self, peer: socket.socket, _: str) -> None:
        server, loop = self._runner.server, asyncio.get_running_loop()
        if server is None:  # stopping
            peer.close()
            return
        ended: asyncio.Future[None] = loop.create_future()
        transport, _protocol = await loop.connect_accepted_socket(
            lambda: _Noticing(server(), ended),
            peer,
            ssl=self._tls,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if self._tls else None,
        )
        try:
            await ended
        finally:
            transport.abort()


def _remove_stale_socket(path: str) -> None:
    """A Unix socket outlives the process that made it; anything else at that path is left alone."""
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)
    except OSError:
        return
