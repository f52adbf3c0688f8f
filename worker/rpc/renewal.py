"""The call that asks for the next certificate."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc import aio

from ssd_proto.v1 import enrolment_pb2 as pb
from worker.errors import LinkBroken
from worker.rpc.channels import Channels

_METHOD = "/ssd_proto.v1.Renewal/Renew"
_CALL_SECONDS = 30.0


class RenewalCall:
    """`worker.connection.renewal.Ask`, on a connection of its own that the present certificate opens."""

    def __init__(self, channels: Channels, target: str) -> None:
        self._channels = channels
        self._target = target

    async def __call__(self, request: bytes) -> bytes:
        """The certificate, PEM.

        Raises:
            LinkBroken: no answer, or a refusal.
        """
        channel = self._channels.open(self._target)
        try:
            renew = channel.unary_unary(_METHOD, pb.RenewRequest.SerializeToString, pb.RenewReply.FromString)
            reply: pb.RenewReply = await asyncio.wait_for(
                renew(pb.RenewRequest(request=request), timeout=_CALL_SECONDS), 2 * _CALL_SECONDS
            )
        except aio.AioRpcError as error:
            pairs: Any = error.trailing_metadata() or ()  # grpc's stubs give it no usable type
            reason = next((str(value) for key, value in pairs if key == "ssd-reason"), "")
            raise LinkBroken(reason or error.code().name.lower(), error.details() or "") from error
        except TimeoutError as error:
            raise LinkBroken("deadline_exceeded", "no answer") from error
        finally:
            await channel.close()
        return reply.certificate
