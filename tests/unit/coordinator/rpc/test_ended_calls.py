"""A call that its peer ended ends its handler: every way of writing to it is a cancellation, not a defect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from coordinator.rpc.federation.upload_call import UploadSender
from coordinator.rpc.serving.calls import PatientContext, Stall, send
from coordinator.workers.sessions import Session

OVER = [asyncio.InvalidStateError("the call is over"), grpc.aio.InternalError("execute_batch failed")]
"""What gRPC raises for it."""


class Ended:
    """A call of gRPC whose peer is gone; it has not cancelled its handler yet."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def write(self, _message: Any) -> None:
        raise self._error

    async def send_initial_metadata(self, _metadata: Any) -> None:
        raise self._error


async def sent(call: Ended) -> None:
    await send(call, b"part", Stall(5.0))


async def replied(call: Ended) -> None:
    await PatientContext(call, 5.0).write(b"reply")


async def replied_after_the_beginning(call: Ended) -> None:
    patient = PatientContext(call, 5.0)
    patient._begun = True
    await patient.write(b"reply")


async def begun(call: Ended) -> None:
    await PatientContext(call, 5.0).send_initial_metadata(())


async def held(call: Ended) -> None:
    session = SimpleNamespace(closed=asyncio.Event())
    sender = UploadSender(cast("Session", session), call, 5.0)
    try:
        await sender.hold()
    finally:
        sender.done()


WAYS = [sent, replied, replied_after_the_beginning, begun, held]


@pytest.mark.parametrize("write", WAYS)
@pytest.mark.parametrize("error", OVER, ids=["over", "broken"])
def test_a_write_to_a_call_that_is_over_cancels_its_handler(
    write: Callable[[Ended], Awaitable[None]], error: Exception
) -> None:
    async def scene() -> None:
        with pytest.raises(asyncio.CancelledError):
            await write(Ended(error))

    asyncio.run(scene())


@pytest.mark.parametrize("write", WAYS)
def test_a_mistake_in_the_use_of_a_call_is_no_peer_that_went_away(
    write: Callable[[Ended], Awaitable[None]],
) -> None:
    async def scene() -> None:
        with pytest.raises(grpc.aio.UsageError):
            await write(Ended(grpc.aio.UsageError("already sent")))

    asyncio.run(scene())
