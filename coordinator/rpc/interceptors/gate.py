"""The one place every call passes: who is calling, is that identity still good, may its role do this.

A call outlives the question at its beginning, a stream by days. Whoever is revoked meanwhile loses whatever of theirs
is still under way, whichever service it is of.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import grpc

from coordinator.errors import ClientFault, NotPermitted, Reason
from coordinator.identity.revocations import RevocationList
from coordinator.ports.identity import Identity
from coordinator.ports.trust import Holder
from coordinator.rpc.interceptors.auth import call_name, check
from coordinator.rpc.serving.calls import Context, Handler, refuse
from coordinator.telemetry.metrics import CoordinatorMetrics
from ssd.trust.names import Subject

LAST_CHANCE_SECONDS = 0.25
"""A session that is revoked ends its own calls, in good order; what is left after that is cut."""

Admit = Callable[[Context], AbstractAsyncContextManager[bool]]
_KINDS = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


@dataclass(eq=False, slots=True)
class _Call:
    """One under way; its handler runs in `task`."""

    task: asyncio.Task[Any]
    cut: bool = False


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs, not at run time
    """Wraps every handler of a server, health and reflection included.

    Args:
        identity: who is calling; where nobody proves anything, everybody who can reach the port may do everything.
        revocations: whom the operator revoked, and who is meanwhile.
        metrics: counts refusals.
    """

    def __init__(self, identity: Identity, revocations: RevocationList, metrics: CoordinatorMetrics) -> None:
        self._identity = identity
        self._revocations = revocations
        self._metrics = metrics
        self._under_way: dict[Holder, set[_Call]] = {}
        revocations.subscribe(self._cut_off)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """The handler of the call, behind the check."""
        handler = await continuation(details)
        if handler is None:
            return None
        method: str = details.method
        return _guarded(handler, lambda context: self._admitted(method, context))

    @contextlib.asynccontextmanager
    async def _admitted(self, method: str, context: Context) -> AsyncIterator[bool]:
        """Whether a call may go on; what happens inside is cancelled when its caller is revoked."""
        try:
            caller = self._check(method, context)
        except ClientFault as fault:
            await refuse(self._metrics, context, call_name(method), fault)
            yield False
            return
        task = asyncio.current_task()
        if caller is None or task is None:
            yield True
            return
        call, holder = _Call(task), Holder(caller.role, caller.name)
        self._under_way.setdefault(holder, set()).add(call)
        try:
            yield True
        except asyncio.CancelledError:
            if not call.cut:
                raise
            task.uncancel()
            await refuse(self._metrics, context, call_name(method), _revoked(caller))
        finally:
            calls = self._under_way[holder]
            calls.discard(call)
            if not calls:
                del self._under_way[holder]

    def _check(self, method: str, context: Context) -> Subject | None:
        caller = self._identity.subject(context.auth_context())
        if caller is not None:
            if self._revocations.is_revoked(caller):
                raise _revoked(caller)
            check(method, caller)
        return caller

    def _cut_off(self, revoked: frozenset[Holder]) -> None:
        asyncio.get_running_loop().call_later(LAST_CHANCE_SECONDS, self._cut, revoked)

    def _cut(self, revoked: frozenset[Holder]) -> None:
        for holder in revoked:
            for call in self._under_way.get(holder, ()):
                call.cut = True
                call.task.cancel()


def _revoked(caller: Subject) -> NotPermitted:
    return NotPermitted(Reason.REVOKED, f"{caller.uri} was revoked by the operator")


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
            async with admit(context) as admitted:
                if admitted:
                    async for reply in behaviour(request, context):
                        yield reply

        return replies

    async def answer(request: Any, context: Context) -> Any:
        async with admit(context) as admitted:
            return await behaviour(request, context) if admitted else None

    return answer
