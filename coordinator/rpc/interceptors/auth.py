"""Who may call what. One pure table for every method of every service on the main port; `coordinator.rpc.interceptors.gate` asks it.

Rules it keeps:

- A method without a row is refused to everybody.
- The coordinator's own certificate is for serving: it may call nothing.
- An operator may do whatever an observer may.
- Only who trains clients uploads; who only measures attends and reads.

Which clients a worker may bring is not decided here but by `coordinator.core.registry`. Enrolment listens on a port of
its own, where callers have no certificate yet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from coordinator.errors import NotPermitted, Reason
from ssd.trust.names import Role, Subject

_ATTENDING = frozenset({Role.WORKER, Role.EVALUATOR})
_TRAINING = frozenset({Role.WORKER})
_READING = frozenset({Role.OPERATOR, Role.OBSERVER})
_OPERATING = frozenset({Role.OPERATOR})

TABLE: Mapping[str, frozenset[Role]] = {
    "/ssd_proto.v1.Federation/Attend": _ATTENDING,
    "/ssd_proto.v1.Federation/FetchBlob": _ATTENDING,
    "/ssd_proto.v1.Federation/SubmitUpdate": _TRAINING,
    "/ssd_proto.v1.Renewal/Renew": _ATTENDING,
    "/ssd_proto.v1.Operator/Status": _READING,
    "/ssd_proto.v1.Operator/Rounds": _READING,
    "/ssd_proto.v1.Operator/Evaluations": _READING,
    "/ssd_proto.v1.Operator/Clients": _READING,
    "/ssd_proto.v1.Operator/Watch": _READING,
    "/ssd_proto.v1.Operator/Pause": _OPERATING,
    "/ssd_proto.v1.Operator/Resume": _OPERATING,
    "/ssd_proto.v1.Operator/Drain": _OPERATING,
    "/ssd_proto.v1.Operator/Revoke": _OPERATING,
    "/ssd_proto.v1.Operator/MoveClient": _OPERATING,
    # The model itself is nothing an observer needs.
    "/ssd_proto.v1.Operator/Version": _OPERATING,
    "/ssd_proto.v1.Operator/Download": _OPERATING,
    "/grpc.health.v1.Health/Check": _READING,
    "/grpc.health.v1.Health/List": _READING,
    "/grpc.health.v1.Health/Watch": _READING,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _READING,
}
"""Full method name -> roles that may call it."""


def allowed(method: str, role: Role) -> bool:
    """Whether the holder of a certificate with this role may call a method."""
    return role in TABLE.get(method, frozenset())


def check(method: str, caller: Subject) -> None:
    """Refuse a call the caller's role does not include.

    Raises:
        NotPermitted: reason role.
    """
    if allowed(method, caller.role):
        return
    may = sorted(TABLE.get(method, ()))
    raise NotPermitted(
        Reason.ROLE,
        f"a certificate of the role {caller.role.value} may not call {call_name(method)};"
        f" {'that takes the role ' + ' or '.join(may) if may else 'nobody may'}",
    )


def call_name(method: str) -> str:
    """The call's name in metrics and logs: /ssd_proto.v1.Federation/FetchBlob -> fetch_blob."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", method.rpartition("/")[2]).lower()
