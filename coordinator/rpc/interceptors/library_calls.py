"""The health and reflection services come from libraries, and their messages are parsed like ours: a message that is
none is refused with a reason and counted, where the libraries' own parser would end the call as if we had broken down.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from coordinator.errors import ClientFault
from coordinator.rpc.interceptors.auth import call_name
from coordinator.rpc.serving.calls import (
    LAST_WORDS_SECONDS,
    Context,
    Handler,
    PatientContext,
    refuse,
    well_formed,
)
from coordinator.rpc.serving.wire import tolerant
from coordinator.telemetry.metrics import CoordinatorMetrics

OWN = "/ssd_proto."
"""How methods begin that parse for themselves."""
MAX_REQUEST_BYTES = 64 << 10


class LibraryCalls(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs, not at run time
    """Puts a parser that never raises before every handler that is not ours.

    Args:
        requests: what each method of the libraries takes: full method name -> message.
        metrics: counts refusals.
    """

    def __init__(self, requests: dict[str, type[Message]], metrics: CoordinatorMetrics) -> None:
        self._requests = requests
        self._metrics = metrics

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """The handler of the call."""
        handler = await continuation(details)
        method: str = details.method
        if handler is None or method.startswith(OWN):
            return handler
        parse = tolerant(self._requests[method], MAX_REQUEST_BYTES)
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._stream(handler, call_name(method)), parse, handler.response_serializer
            )
        make = (
            grpc.unary_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make(self._single(handler, call_name(method)), parse, handler.response_serializer)

    def _single(self, handler: Handler, call: str) -> Callable[[Any, Context], Any]:
        behaviour = handler.unary_stream if handler.response_streaming else handler.unary_unary

        async def answer(request: Any, context: Context) -> Any:
            try:
                asked = well_formed(request)
            except ClientFault as fault:
                await refuse(self._metrics, context, call, fault)
                return None
            # The library's watches hold a lock of all of them while one is written to.
            return await behaviour(asked, PatientContext(context, LAST_WORDS_SECONDS))

        return answer

    def _stream(self, handler: Handler, call: str) -> Callable[[Any, Context], Any]:
        async def parsed(requests: AsyncIterator[Any]) -> AsyncIterator[Message]:
            async for request in requests:
                yield well_formed(request)

        async def replies(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            try:
                async for reply in handler.stream_stream(parsed(requests), context):
                    yield reply
            except ClientFault as fault:
                await refuse(self._metrics, context, call, fault)

        return replies
