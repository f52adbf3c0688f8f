"""Reading what a daemon tells the world: its JSON log, line by line, and its metrics page."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Json = Any
METRICS_SECONDS = 2.0


class LogFollower:
    """The JSON lines of a growing file, each given once. Other lines (a traceback, say) are skipped.

    Args:
        path: the file; it need not exist yet.
        from_now: skip what it holds already.
    """

    def __init__(self, path: Path, *, from_now: bool = False) -> None:
        self._path = path
        self._position = path.stat().st_size if from_now and path.exists() else 0
        self._rest = b""

    def read(self) -> list[dict[str, Json]]:
        """What was added since the last call, as far as its lines are complete."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                added = file.read()
        except FileNotFoundError:
            return []
        self._position += len(added)
        *lines, self._rest = (self._rest + added).split(b"\n")
        return [record for line in lines if (record := _record(line)) is not None]


def _record(line: bytes) -> dict[str, Json] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "event" in value else None


def scrape(address: str) -> dict[str, float]:
    """The samples of `/metrics` at host:port; empty if nobody answers."""
    # No proxy meant for the web, whatever the environment says: the daemon is on this machine.
    connection = http.client.HTTPConnection(address, timeout=METRICS_SECONDS)
    try:
        connection.request("GET", "/metrics")
        reply = connection.getresponse()
        return parse_samples(reply.read().decode("utf-8")) if reply.status == http.HTTPStatus.OK else {}
    except (OSError, http.client.HTTPException):
        return {}
    finally:
        connection.close()


def parse_samples(text: str) -> dict[str, float]:
    """Prometheus' text format as `name{labels}` -> value; comments and what is no number are left out."""
    samples = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name and not line.startswith("#"):
            try:
                samples[name] = float(value)
            except ValueError:
                continue
    return samples


def labelled(samples: Mapping[str, float], metric: str, label: str) -> dict[str, float]:
    """The samples `metric{label="X"}` by X."""
    start, end = f'{metric}{{{label}="', '"}'
    return {
        name[len(start) : -len(end)]: value
        for name, value in samples.items()
        if name.startswith(start) and name.endswith(end)
    }
