"""The worker's own HTTP port: /metrics for Prometheus, /livez and /readyz for probes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from ssd.daemon.address import parse_address
from worker.driver import Driver
from worker.errors import PortUnavailable
from worker.telemetry.metrics import Metrics


@asynccontextmanager
async def serve_http(address: str, metrics: Metrics, driver: Driver) -> AsyncIterator[None]:
    """Serve while the context is open; an empty address serves nothing.

    Raises:
        PortUnavailable: the address cannot be bound.
    """
    if not address:
        yield
        return

    async def get_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def get_live(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def get_ready(_: web.Request) -> web.Response:
        ready = driver.attending
        return web.Response(text="ok\n" if ready else "not attending\n", status=200 if ready else 503)

    app = web.Application()
    app.add_routes(
        [web.get("/metrics", get_metrics), web.get("/livez", get_live), web.get("/readyz", get_ready)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    where = parse_address(address)
    site = web.UnixSite(runner, where.path) if where.path else web.TCPSite(runner, where.host, where.port)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise PortUnavailable(f"[worker] http_listen: {address} cannot be bound: {error.strerror}") from error
    try:
        yield
    finally:
        await runner.cleanup()
