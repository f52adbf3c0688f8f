"""The one place every call passes: who is calling, is that identity still good, may its role do this.

A call outlives the question at its beginning, a stream by days. Whoever is revoked meanwhile loses whatever of theirs
is still under way, whichever service it is of. And because every call passes here, here is where no certificate gets
more than its share of them, and no reply waits without end for a peer that does not read.
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

from coordinator.config.sections import LimitsSection
from coordinator.errors import ClientFault, NotPermitted, Reason
from coordinator.identity.revocations import RevocationList
from coordinator.ports.identity import Identity
from coordinator.ports.trust import Holder
from coordinator.rpc.interceptors.auth import call_name, check
from coordinator.rpc.serving.calls import Context, Handler, PatientContext, Unread, refuse
from coordinator.telemetry.metrics import CoordinatorMetrics
from ssd.trust.names import Subject

LAST_CHANCE_SECONDS = 0.25
"""A session that is revoked ends its own calls, in good order; what is left after that is cut."""

CALLS_PER_HOLDER = 16
"""Calls of one method that a certificate has under way: watches, lists, renewals, streams that are ending."""
FEDERATION = "/ssd_proto.v1.Federation"

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
    method: str
    cut: bool = False


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs, not at run time
    """Wraps every handler of a server, health and reflection included.

    Args:
        identity: who is calling; where nobody proves anything, everybody who can reach the port may do everything.
        revocations: whom the operator revoked, and who is meanwhile.
        metrics: counts refusals.
        limits: how many calls a certificate has under way, and how long a reply may wait to be read.
    """

    def __init__(
        self,
        identity: Identity,
        revocations: RevocationList,
        metrics: CoordinatorMetrics,
        limits: LimitsSection,
    ) -> None:
        self._identity = identity
        self._revocations = revocations
        self._metrics = metrics
        self._stall_seconds = limits.stall_seconds
        # The calls of data count their own, which are let in; some that are not may still be ending.
        self._most = {
            f"{FEDERATION}/SubmitUpdate": CALLS_PER_HOLDER + limits.uploads_per_worker,
            f"{FEDERATION}/FetchBlob": CALLS_PER_HOLDER + limits.fetches_per_worker,
        }
        self._under_way: dict[Holder, set[_Call]] = {}
        revocations.subscribe(self._cut_off)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """The handler of the call, behind the check."""
        handler = await continuation(details)
        if handler is None:
            return None
        method: str = details.method
        return _guarded(handler, lambda context: self._admitted(method, context), self._stall_seconds)

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
        call = None
        try:
            if caller is not None and task is not None:
                call = self._begin(_holder(caller), task, method)
            yield True
        except ClientFault as fault:
            # A reply that nobody reads, in a handler that knows nothing of such faults.
            await refuse(self._metrics, context, call_name(method), fault)
        except asyncio.CancelledError:
            if call is None or not call.cut:
                raise
            assert caller is not None
            call.task.uncancel()
            await refuse(self._metrics, context, call_name(method), _revoked(caller))

    def _begin(self, holder: Holder, task: asyncio.Task[Any], method: str) -> _Call:
        """Count a call until its task is done: the end of a handler is not the end of its call."""
        call = _Call(task, method)
        self._under_way.setdefault(holder, set()).add(call)

        def forget(_: asyncio.Task[Any]) -> None:
            calls = self._under_way[holder]
            calls.discard(call)
            if not calls:
                del self._under_way[holder]

        task.add_done_callback(forget)
        return call

    def _check(self, method: str, context: Context) -> Subject | None:
        caller = self._identity.subject(context.auth_context())
        if caller is not None:
            if self._revocations.is_revoked(caller):
                raise _revoked(caller)
            check(method, caller)
            most = self._most.get(method, CALLS_PER_HOLDER)
            under_way = self._under_way.get(_holder(caller), ())
            if sum(call.method == method for call in under_way) >= most:
                name = call_name(method)
                raise ClientFault(
                    Reason.NO_ROOM, f"{most} calls {name} of this certificate are under way; come again"
                )
        return caller

    def _cut_off(self, revoked: frozenset[Holder]) -> None:
        asyncio.get_running_loop().call_later(LAST_CHANCE_SECONDS, self._cut, revoked)

    def _cut(self, revoked: frozenset[Holder]) -> None:
        for holder in revoked:
            for call in self._under_way.get(holder, ()):
                call.cut = True
                call.task.cancel()


def _holder(caller: Subject) -> Holder:
    return Holder(caller.role, caller.name)


def _revoked(caller: Subject) -> NotPermitted:
    return NotPermitted(Reason.REVOKED, f"{caller.uri} was revoked by the operator")


def _guarded(handler: Handler, admit: Admit, seconds: float) -> Handler:
    kind, make = _KINDS[handler.request_streaming, handler.response_streaming]
    behaviour = getattr(handler, kind)
    return make(
        _behind(behaviour, admit, seconds),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _behind(
    behaviour: Callable[[Any, Context], Any], admit: Admit, seconds: float
) -> Callable[[Any, Context], Any]:
    """The behaviour behind `admit`, with replies that are waited for no longer than `seconds`."""

    async def answer(request: Any, context: Context) -> Any:
        async with admit(context) as admitted:
            if not admitted:
                return None
            patient = PatientContext(context, seconds)
            if not inspect.isasyncgenfunction(behaviour):
                return await behaviour(request, patient)
            # What a generator yields gRPC would write, and wait for as long as the peer likes.
            async with contextlib.aclosing(behaviour(request, patient)) as replies:
                async for reply in replies:
                    await patient.write(reply)
        return None

    async def counted(request: Any, context: Context) -> Any:
        try:
            return await answer(request, context)
        except Unread as unread:
            status = unread.status
            if not context.auth_context():
                status.cancel()
                raise
        # gRPC keeps the stream, and what waits to be read, until the peer reads or its connection is gone. So long the
        # call counts against its certificate.
        try:
            await asyncio.wait({status})
        finally:
            status.cancel()
        raise asyncio.CancelledError

    return counted
