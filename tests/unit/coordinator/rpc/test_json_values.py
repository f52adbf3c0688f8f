"""Answers of the Operator service as JSON: every field of the contract, in the order that scripts have seen so far."""

from __future__ import annotations

import math

import pytest
from google.protobuf.message import Message

from coordinator.rpc.operator import json_values as values
from ssd_proto.v1 import operator_pb2 as pb


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (values.status(pb.StatusReply(details=pb.StatusDetails())), pb.StatusReply()),
        (values.round_record(pb.RoundRecord()), pb.RoundRecord()),
        (values.client_record(pb.ClientRecord()), pb.ClientRecord()),
    ],
)
def test_no_field_of_the_contract_is_left_out(made: dict[str, object], message: Message) -> None:
    assert made.keys() - {"model_digest"} == {each.name for each in message.DESCRIPTOR.fields} - {
        "model_digest"
    }


def test_what_is_not_there_or_not_finite_is_null() -> None:
    reply = pb.StatusReply(uptime_seconds=math.inf, evaluation={"b": math.nan, "a": 0.5})
    told = values.status(reply)
    assert "details" not in told
    assert (told["uptime_seconds"], list(told["evaluation"].items())) == (None, [("a", 0.5), ("b", None)])
    reply.details.dropped.add(worker="w", round=2, seconds_ago=1.5)
    reply.details.secure_aggregation.awaited.append("w")
    reply.workers.add(worker="w", clients=3, evaluates=True)
    told = values.status(reply)
    assert next(iter(told)) == "details"
    assert told["details"]["left_seconds"] is None
    assert told["details"]["dropped"] == [
        {"client": "", "worker": "w", "round": 2, "attempt": 0, "reason": "", "seconds_ago": 1.5}
    ]
    assert told["details"]["secure_aggregation"]["awaited"] == ["w"]
    assert told["workers"] == [
        {"worker": "w", "clients": 3, "evaluates": True, "device": "", "last_seen_seconds": 0.0}
    ]
    reply.details.left_seconds = -2.0
    assert values.status(reply)["details"]["left_seconds"] == -2.0
    assert values.client_record(pb.ClientRecord(index=-1))["index"] is None
    assert values.client_record(pb.ClientRecord(index=0, scaled_dimensions=[3, 5]))["scaled_dimensions"] == [
        3,
        5,
    ]
