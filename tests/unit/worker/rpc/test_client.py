"""What the coordinator says wrongly is the coordinator's fault, whatever bytes it is."""

from __future__ import annotations

import asyncio

import pytest

from ssd_proto.v1 import federation_pb2 as pb
from worker.core.effects import OpenLink
from worker.errors import CoordinatorFault
from worker.rpc.client import Greeting, GrpcStream


class OneMessage:
    """A call that brings these bytes."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    async def read(self) -> bytes:
        return self._raw


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"\xff\xff", "the coordinator sent a message that cannot be decoded"),
        (
            pb.CoordinatorMessage(welcome=pb.Welcome(protocol=2)).SerializeToString(),
            "the coordinator sent protocol 2, which was never offered",
        ),
        (
            pb.CoordinatorMessage(train=pb.Train(round=1)).SerializeToString(),
            "the coordinator sent a task without round, attempt or threads",
        ),
    ],
)
def test_a_malformed_message_down_is_the_coordinators_fault(raw: bytes, says: str) -> None:
    async def scene() -> None:
        with pytest.raises(CoordinatorFault) as fault:
            await anext(GrpcStream(OneMessage(raw)).messages())
        assert str(fault.value) == says

    asyncio.run(scene())


def test_the_hello_has_what_the_session_decided_and_who_the_worker_is() -> None:
    greeting = Greeting(
        worker="w",
        instance="0" * 32,
        build="b",
        evaluates=True,
        labels=True,
        client_tests=False,
        device=lambda: ("cuda", 7),
    )
    opening = OpenLink(
        run_id="r", clients={"a": 2}, versions_held=(1,), held_updates=(), newest=(3, "f" * 64)
    )
    hello = greeting.hello(opening)
    assert (hello.worker, hello.instance, hello.build) == ("w", "0" * 32, "b")
    assert (hello.run_id, hello.clients, hello.versions_held, hello.held_updates, hello.newest) == (
        "r", {"a": 2}, (1,), (), (3, "f" * 64)
    )  # fmt: skip
    can = hello.capabilities
    assert (can.evaluates, can.labels, can.client_tests) == (True, True, False)
    assert (can.device, can.device_memory) == ("cuda", 7)
