"""The one place every call passes: who is calling, is that identity still good, may its role do this."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from coordinator.errors import ClientFault, NotPermitted, Reason
from coordinator.metrics import CoordinatorMetrics
from coordinator.ports import Identity
from coordinator.rpc.auth import call_name, check
from coordinator.rpc.calls import Context, Handler, refuse
from ssd.trust.names import Subject

Admit = Callable[[Context], Awaitable[bool]]
_KINDS = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs, not at run time
    """Wraps every handler of a server, health and reflection included.

    Args:
        identity: who is calling; where nobody proves anything, everybody who can reach the port may do everything.
        is_revoked: whether the operator revoked an identity.
        metrics: counts refusals.
    """

    def __init__(
        self, identity: Identity, is_revoked: Callable[[Subject], bool], metrics: CoordinatorMetrics
    ) -> None:
        self._identity = identity
        self._is_revoked = is_revoked
        self._metrics = metrics

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """The handler of the call, behind the check."""
        handler = await continuation(details)
        if handler is None:
            return None
        method: str = details.method

        async def admit(context: Context) -> bool:
            try:
                self._check(method, context)
            except ClientFault as fault:
                await refuse(self._metrics, context, call_name(method), fault)
                return False
            return True

        return _guarded(handler, admit)

    def _check(self, method: str, context: Context) -> None:
        caller = self._identity.subject(context.auth_context())
        if caller is None:
            return
        if self._is_revoked(caller):
            raise NotPermitted(Reason.REVOKED, f"{caller.uri} was revoked by the operator")
        check(method, caller)


def _guarded(handler: Handler, admit: Admit) -> Handler:
    kind, make = _KINDS[handler.request_streaming, handler.response_streaming]
    behaviour = getattr(handler, kind)
    return make(
        _behind(behaviour, admit),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _behind(behaviour: Callable[[Any, Context], Any], admit: Admit) -> Callable[[Any, Context], Any]:
    if inspect.isasyncgenfunction(behaviour):

        async def replies(request: Any, context: Context) -> AsyncIterator[Any]:
            if await admit(context):
                async for reply in behaviour(request, context):
                    yield reply

        return replies

    async def answer(request: Any, context: Context) -> Any:
        return await behaviour(request, context) if await admit(context) else None

    return answer
