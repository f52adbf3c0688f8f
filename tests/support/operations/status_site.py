"""A status page served over a real socket, of a driver in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from coordinator.parts import Coordinator
from coordinator.runtime.clock import SystemClock
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.web.access import Access
from coordinator.web.api import Api
from coordinator.web.http import HttpServer, create_app
from coordinator.web.pages import add_pages
from rounds.driver_harness import driver, simulate
from ssd.daemon.address import Address

TOKEN = "operator-" * 5


class Site:
    """A served page, and ways to ask it."""

    def __init__(self, url: str, client: aiohttp.ClientSession) -> None:
        self.url = url
        self._client = client

    async def ask(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._client.request(method, self.url + path, headers=names) as reply:
            return reply.status, reply.headers, await reply.read()

    async def json(self, path: str, **headers: str) -> Any:
        status, _, body = await self.ask(f"/api/v1/{path}", **headers)
        assert status == 200, body
        return json.loads(body)


@asynccontextmanager
async def served(subject: Coordinator, token_file: Path | None = None) -> AsyncIterator[Site]:
    access = Access(token_file, SystemClock().monotonic)
    api = Api(subject.reports, subject.driver, SystemClock(), access, "build")
    server = HttpServer(create_app(CoordinatorMetrics().render, list, add_pages, api.add_to))
    address = await server.start(Address(host="127.0.0.1"))
    try:
        async with aiohttp.ClientSession() as client:
            yield Site(f"http://{address}", client)
    finally:
        await server.stop()


def play(
    tmp_path: Path,
    scene: Callable[[Coordinator, Site], Awaitable[None]],
    token_file: Path | None = None,
    **changes: Any,
) -> None:
    async def within(subject: Coordinator) -> None:
        async with served(subject, token_file) as site:
            await scene(subject, site)

    simulate(within, lambda: driver(tmp_path, **changes))
