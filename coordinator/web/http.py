"""The HTTP side: /metrics for Prometheus, /livez and /readyz for whoever supervises the process.

`/livez` answers as long as the event loop runs. `/readyz` asks a function: 200 if it says yes, otherwise 503 with
its reasons. Nothing here accepts a token or changes anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from coordinator.errors import PortUnavailable

SHUTDOWN_SECONDS = 2.0

Readiness = Callable[[], tuple[bool, Sequence[str]]]


def create_app(registry: CollectorRegistry, readiness: Readiness) -> web.Application:
    """The application.

    Args:
        registry: what /metrics shows; rendered in a thread.
        readiness: whether the daemon is ready and, if not, why, one sentence each. Must not block.
    """

    async def metrics(_: web.Request) -> web.Response:
        body = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def readyz(_: web.Request) -> web.Response:
        ready, reasons = readiness()
        return web.json_response({"ready": ready, "reasons": list(reasons)}, status=200 if ready else 503)

    app = web.Application(client_max_size=1024)
    app.add_routes([web.get("/metrics", metrics), web.get("/livez", livez), web.get("/readyz", readyz)])
    return app


class HttpServer:
    """Serves the application on one address."""

    def __init__(self, registry: CollectorRegistry, readiness: Readiness) -> None:
        self._runner = web.AppRunner(
            create_app(registry, readiness), access_log=None, shutdown_timeout=SHUTDOWN_SECONDS
        )

    async def start(self, host: str, port: int) -> int:
        """Listen, and say on which port (0: any free one was asked for).

        Raises:
            PortUnavailable: the address cannot be bound.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise PortUnavailable(
                f"http_listen {host}:{port} cannot be bound ({error.strerror or error}): stop what uses it, choose "
                'another address, or switch it off with http_listen = ""'
            ) from error
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening and let running answers finish; idempotent."""
        await self._runner.cleanup()
