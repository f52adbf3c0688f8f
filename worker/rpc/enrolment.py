"""The call that spends a join token."""

from __future__ import annotations

from typing import Any

import grpc

from ssd.daemon.address import BY_ENVIRONMENT, Address, proxy_options
from ssd.trust.join_token import JoinToken
from ssd_proto.v1 import enrolment_pb2 as pb
from worker.errors import EnrolmentRefused, LinkBroken

_METHOD = "/ssd_proto.v1.Enrolment/Enroll"
_CALL_SECONDS = 20.0
_REASON_KEY = "ssd-reason"
_OPTIONS = (("grpc.enable_retries", 0), ("grpc.max_receive_message_length", 64 << 10))


def enroll(
    address: Address,
    authority: bytes,
    name: str,
    token: JoinToken,
    request: bytes,
    proxy: str = BY_ENVIRONMENT,
) -> bytes:
    """See `worker.connection.enrolment.Ask`."""
    options: list[tuple[str, int | str]] = [*_OPTIONS, *proxy_options(address, proxy)]
    if name:
        options.append(("grpc.ssl_target_name_override", name))
    message = pb.EnrollRequest(secret=token.secret, subject=token.subject.uri, request=request)
    with grpc.secure_channel(
        str(address), grpc.ssl_channel_credentials(authority), options=options
    ) as channel:
        call = channel.unary_unary(_METHOD, pb.EnrollRequest.SerializeToString, pb.EnrollReply.FromString)
        try:
            reply: pb.EnrollReply = call(message, timeout=_CALL_SECONDS)
        except grpc.RpcError as error:
            raise _fault(error, address) from error
    return reply.certificate


def _fault(error: Any, address: Address) -> EnrolmentRefused | LinkBroken:
    details = error.details() or ""
    reason = next((str(value) for key, value in error.trailing_metadata() or () if key == _REASON_KEY), "")
    code = error.code()
    if code in {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }:
        return LinkBroken(reason or code.name.lower(), details)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return EnrolmentRefused(
            f"{address} is not the enrolment port: `[enrolment] listen` of the coordinator says which"
        )
    return EnrolmentRefused(
        f"the coordinator at {address} refused ({reason or code.name.lower()}): {details}"
    )
