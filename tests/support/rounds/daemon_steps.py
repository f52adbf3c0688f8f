"""Small steps of the worker's tests: running one, what a worker holds, a verdict that discards."""

from __future__ import annotations

import asyncio
from typing import Any

from ssd_proto.v1 import federation_pb2 as pb


def run(coroutine: Any) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 90))


def discard(reason: str) -> pb.Verdict:
    return pb.Verdict(fate=pb.Verdict.FATE_DISCARDED, reason=reason)
