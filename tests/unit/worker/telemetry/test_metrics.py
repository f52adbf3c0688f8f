"""Metrics, and the port that serves them."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from processes.ports import free_port
from worker.errors import PortUnavailable
from worker.telemetry.metrics import Metrics, bounded
from worker.web import serve_http


def test_metric_names_have_the_prefix_and_a_closed_set_of_labels() -> None:
    metrics = Metrics("b")
    metrics.moved("up", 5)
    text = metrics.render().decode()
    assert 'ssd_worker_bytes_total{direction="up"} 5.0' in text
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert all(name.startswith("ssd_worker_") for name in names)
    assert bounded("over_norm") == "over_norm"
    assert bounded("anything a peer says") == "other"


class FakeDriver:
    attending = False


def test_probes_and_metrics_over_http() -> None:
    async def scenario() -> None:
        driver = FakeDriver()
        metrics = Metrics("b")
        address = f"127.0.0.1:{free_port()}"
        async with serve_http(address, metrics, driver), aiohttp.ClientSession() as session:  # type: ignore[arg-type]
            base = f"http://{address}"
            async with session.get(f"{base}/livez") as reply:
                assert reply.status == 200
            async with session.get(f"{base}/readyz") as reply:
                assert reply.status == 503
            driver.attending = True
            async with session.get(f"{base}/readyz") as reply:
                assert reply.status == 200
            async with session.get(f"{base}/metrics") as reply:
                assert "ssd_worker_build_info" in await reply.text()
            with pytest.raises(PortUnavailable):
                async with serve_http(address, metrics, driver):  # type: ignore[arg-type]
                    pass

    asyncio.run(scenario())


def test_an_empty_address_serves_nothing() -> None:
    async def scenario() -> None:
        async with serve_http("", Metrics("b"), FakeDriver()):  # type: ignore[arg-type]
            pass

    asyncio.run(scenario())
