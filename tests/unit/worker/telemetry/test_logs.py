"""Log lines and metrics."""

from __future__ import annotations

import asyncio
import json
import logging
import re

import aiohttp
import pytest

from processes.ports import free_port
from worker.errors import PortUnavailable
from worker.logs import HumanFormatter, JsonFormatter, fields
from worker.telemetry.metrics import Metrics, bounded
from worker.web import serve_http


def record(**extra: object) -> logging.LogRecord:
    logger = logging.getLogger("worker.driver")
    return logger.makeRecord(
        "worker.driver", logging.WARNING, "f", 1, "link_lost", (), None, extra=fields(**extra)
    )


def test_one_event_per_line_for_people() -> None:
    line = HumanFormatter().format(record(reason="un known", seconds=1.23456, empty="", text='a"b\nc'))
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning worker\.driver link_lost .*", line)
    assert 'reason="un known" seconds=1.235 text="a\\"b\\nc"' in line
    assert "empty" not in line


def test_one_json_object_per_line_for_machines() -> None:
    line = JsonFormatter().format(record(reason="x", clients=["a", "b"], count=2))
    value = json.loads(line)
    assert (value["event"], value["level"], value["logger"]) == ("link_lost", "warning", "worker.driver")
    assert (value["reason"], value["clients"], value["count"]) == ("x", ["a", "b"], 2)
    assert "\n" not in line


def test_bytes_and_arrays_never_reach_a_log() -> None:
    line = JsonFormatter().format(record(body=b"secret", token=bytearray(b"secret"), many=list(range(1000))))
    assert "secret" not in line
    assert len(line) < 1000


def test_an_exception_is_told_with_its_traceback() -> None:
    try:
        raise ValueError("x")
    except ValueError as error:
        entry = record()
        entry.exc_info = (type(error), error, error.__traceback__)
    assert "ValueError: x" in HumanFormatter().format(entry)
    assert "ValueError: x" in json.loads(JsonFormatter().format(entry))["traceback"]


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
