"""The HTTP side: /metrics for Prometheus, /livez and /readyz for whoever supervises the process.

`/livez` answers as long as the event loop runs. `/readyz` asks a function: an empty answer is ready (200), reasons
are not (503). Nothing here accepts a token or changes anything.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Sequence

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

    app = web.Application(client_max_size=1024)
    app.add_routes([web.get("/metrics", metrics), web.get("/livez", livez), web.get("/readyz", readyz)])
    return app


class HttpServer:
    """Serves an application on one address."""

    def __init__(self, app: web.Application) -> None:
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
            site = web.UnixSite(self._runner, address.path)
        else:
            site = web.TCPSite(self._runner, address.host, address.port)
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
