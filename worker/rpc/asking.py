"""One question to the coordinator that changes nothing here or there: does it take this certificate, and does it serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc

from ssd.daemon.address import BY_ENVIRONMENT, parse_address, proxy_options
from ssd.trust.authority import LOCAL_NAME
from ssd.trust.identity_files import Identity

_CHECK = "/grpc.health.v1.Health/Check"
_SERVED = {b"": "UNKNOWN", b"\x08\x01": "SERVING", b"\x08\x02": "NOT_SERVING", b"\x08\x03": "UNKNOWN"}
"""grpc.health.v1.HealthCheckResponse, field 1, an enumeration."""
_TOO_LITTLE = "role"
"""The `ssd-reason` of a call that is not for this role: health is for operators, so who hears this was recognised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the coordinator said."""

    serving: str = ""
    """SERVING, NOT_SERVING, UNKNOWN; empty if it said nothing."""
    reason: str = ""
    """`ssd-reason` or status of a refusal."""
    detail: str = ""


def ask_health(
    target: str, identity: Identity | None, server_name: str, patience: float, proxy: str = BY_ENVIRONMENT
) -> Answer:
    """Calls once and hangs up.

    Args:
        target: host:port or unix:/path.
        identity: to show; None: without TLS.
        server_name: which the coordinator's certificate must carry; empty: the host part of the target.
        patience: seconds.
        proxy: `[transport] proxy`.
    """
    address = parse_address(target)
    options: list[tuple[str, int | str]] = [
        *proxy_options(address, proxy),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if server_name or address.path:
        options.append(("grpc.ssl_target_name_override", server_name or LOCAL_NAME))
    channel: Any  # its stubs demand serialisers, which bytes do without
    if identity is None:
        channel = grpc.insecure_channel(target, options)
    else:
        own = identity.credential
        credentials = grpc.ssl_channel_credentials(identity.authority, own.key, own.certificate)
        channel = grpc.secure_channel(target, credentials, options)
    with channel:
        try:
            reply: bytes = channel.unary_unary(_CHECK)(b"", timeout=patience)
        except grpc.RpcError as error:
            trailing: Any = error.trailing_metadata() or ()
            told: dict[str, Any] = dict(trailing)
            reason = str(told.get("ssd-reason", error.code().name.lower()))
            if reason == _TOO_LITTLE:
                return Answer(serving="SERVING")
            return Answer(reason=reason, detail=str(error.details() or ""))
    return Answer(serving=_SERVED.get(reply, "UNKNOWN"))
