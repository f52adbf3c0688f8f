"""A call with one message up is not waited for longer than a connection is.

gRPC receives the one message of such a call before any handler hears of it, for as long as the sender likes to take:
a few bytes short of the limit, on every call of every connection, and nobody would notice. On the wire one message is
a stream of one, so here it is read as a stream, by us and with patience that ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from coordinator.errors import ClientFault, Reason
from coordinator.rpc.interceptors.auth import call_name
from coordinator.rpc.serving.calls import EOF, Context, Handler, ending_with_its_peer, refuse
from coordinator.telemetry.metrics import CoordinatorMetrics


class FirstMessage(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs, not at run time
    """Turns every handler that takes one message into one that reads it.

    Args:
        metrics: counts those that never came.
        seconds: how long the message may take to arrive whole.
    """

    def __init__(self, metrics: CoordinatorMetrics, seconds: float) -> None:
        self._metrics = metrics
        self._seconds = seconds

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """The handler of the call; streams up read for themselves."""
        handler = await continuation(details)
        if handler is None or handler.request_streaming:
            return handler
        return self._reading(handler, call_name(details.method))

    def _reading(self, handler: Handler, call: str) -> Handler:
        behaviour = handler.unary_stream if handler.response_streaming else handler.unary_unary

        async def read_and_answer(_requests: Any, context: Context) -> None:
            try:
                request = await asyncio.wait_for(context.read(), self._seconds)
            except TimeoutError:
                detail = f"the request did not arrive within {self._seconds:g} s"
                await refuse(self._metrics, context, call, ClientFault(Reason.STALLED, detail))
                return
            if request is EOF:
                await refuse(
                    self._metrics,
                    context,
                    call,
                    ClientFault(Reason.MALFORMED_MESSAGE, "the call had no message"),
                )
                return
            reply = await behaviour(request, context)
            if not handler.response_streaming:
                with ending_with_its_peer():
                    await context.write(reply)

        return grpc.stream_stream_rpc_method_handler(
            read_and_answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
