"""The method host without a process: the same requests and replies, answered here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from coordinator.method_host.client import SubprocessMethodHost
from ssd.method_host.host import Host


class InProcessHost(SubprocessMethodHost):
    """`coordinator.ports.method_host.MethodHost` over `ssd.method_host.host.Host`.

    Args:
        before: called with every request before it is answered; may raise in its place.
    """

    def __init__(self, before: Callable[[Mapping[str, Any]], None] = lambda request: None) -> None:
        super().__init__()
        self._host = Host()
        self._before = before
        self.closed = 0

    async def _exchange(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._before(request)
        return dict(self._host.answer(json.dumps(request, allow_nan=False)))

    async def close(self) -> None:
        self.closed += 1
        self._host = Host()
