"""Who may call what, cell by cell, and what becomes of methods nobody thought of."""

from __future__ import annotations

import pytest

from coordinator.errors import NotPermitted, Reason
from coordinator.rpc.interceptors.auth import TABLE, allowed, call_name, check
from ssd.trust.names import Role, Subject

FEDERATION, OPERATOR = "/ssd_proto.v1.Federation/", "/ssd_proto.v1.Operator/"
RENEW = "/ssd_proto.v1.Renewal/Renew"
HEALTH, REFLECTION = "/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/"

MAY = {
    Role.COORDINATOR: set(),
    Role.WORKER: {RENEW, *(FEDERATION + name for name in ("Attend", "FetchBlob", "SubmitUpdate"))},
    Role.EVALUATOR: {RENEW, *(FEDERATION + name for name in ("Attend", "FetchBlob"))},
    Role.OBSERVER: {
        *(OPERATOR + name for name in ("Status", "Rounds", "Evaluations", "Clients", "Watch")),
        *(HEALTH + name for name in ("Check", "List", "Watch")),
        REFLECTION + "ServerReflectionInfo",
    },
}
for role in (Role.WORKER, Role.EVALUATOR):
    MAY[role].add("/ssd_proto.v1.Renewal/Renew")
MAY[Role.OPERATOR] = MAY[Role.OBSERVER] | {
    OPERATOR + name for name in ("Pause", "Resume", "Drain", "Revoke", "MoveClient", "Version", "Download")
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("method", sorted(TABLE))
def test_each_role_may_call_exactly_its_methods(role: Role, method: str) -> None:
    assert allowed(method, role) is (method in MAY[role])
    caller = Subject("hospital", role, "somebody")
    if method in MAY[role]:
        check(method, caller)
        return
    with pytest.raises(NotPermitted) as refused:
        check(method, caller)
    assert refused.value.reason is Reason.ROLE
    assert role.value in refused.value.detail
    assert call_name(method) in refused.value.detail


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("method", ["", "/", OPERATOR + "Erase", OPERATOR + "status", OPERATOR + "Status/x"])
def test_a_method_without_a_row_is_nobodys(role: Role, method: str) -> None:
    assert not allowed(method, role)
    with pytest.raises(NotPermitted, match="nobody may"):
        check(method, Subject("hospital", role, "somebody"))


def test_calls_have_the_names_that_metrics_know() -> None:
    assert call_name(FEDERATION + "FetchBlob") == "fetch_blob"
    assert call_name(FEDERATION + "Attend") == "attend"
    assert call_name(REFLECTION + "ServerReflectionInfo") == "server_reflection_info"
