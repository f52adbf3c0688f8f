"""The HTTP side: /metrics for Prometheus, /livez and /readyz for whoever supervises the process.

`/livez` answers as long as the event loop runs. `/readyz` asks a function: an empty answer is ready (200), reasons
are not (503). Nothing here asks for a token or changes anything, and a token that comes in the clear from another
machine is answered with a refusal, because whoever sends one has just shown it to the network.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
import stat
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from coordinator.address import Address
from coordinator.errors import PortUnavailable
from coordinator.metrics import CONTENT_TYPE

SHUTDOWN_SECONDS = 2.0


def create_app(render: Callable[[], bytes], not_ready: Callable[[], Sequence[str]]) -> web.Application:
    """The application.

    Args:
        render: the exposition text of all metrics; called in a thread.
        not_ready: why the daemon is not ready, one sentence each; empty if it is. Must not block.
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
    app.add_routes([web.get("/metrics", metrics), web.get("/livez", livez), web.get("/readyz", readyz)])
    return app


@web.middleware
async def refuse_shown_tokens(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """403 for a request from another machine that carries a credential in the clear."""
    carries = "Authorization" in request.headers or "Cookie" in request.headers
    if carries and not request.secure and not _is_this_machine(request):
        raise web.HTTPForbidden(
            text="a token was sent in the clear: consider it known, replace it, and come over HTTPS"
            " (coordinator.http_certificate) or from this machine\n"
        )
    return await handler(request)


def _is_this_machine(request: web.Request) -> bool:
    peer = None if request.transport is None else request.transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return True  # a Unix socket has no peer address
    address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


class HttpServer:
    """Serves an application on one address.

    Args:
        app: what to serve.
        tls: None: plain HTTP.
    """

    def __init__(self, app: web.Application, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)

    async def start(self, address: Address) -> Address:
        """Listen, and say where (the port, if any free one was asked for).

        Raises:
            PortUnavailable: the address cannot be bound.
        """
        await self._runner.setup()
        site: web.BaseSite
        if address.path:
            _remove_stale_socket(address.path)
            site = web.UnixSite(self._runner, address.path, ssl_context=self._tls)
        else:
            site = web.TCPSite(self._runner, address.host, address.port, ssl_context=self._tls)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise PortUnavailable(
                f"http_listen {address} cannot be bound ({error.strerror or error}): stop what uses it, choose "
                'another address, or switch it off with http_listen = ""'
            ) from error
        if address.path:
            return address
        return Address(host=address.host, port=self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening and let running answers finish; idempotent."""
        await self._runner.cleanup()


def _remove_stale_socket(path: str) -> None:
    """A Unix socket outlives the process that made it; anything else at that path is left alone."""
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)
    except OSError:
        return
