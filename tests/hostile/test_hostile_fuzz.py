"""Random bytes, mutated messages and absurd but well-formed ones to every handler: no crash, no hang, no bit moved."""

from __future__ import annotations

import contextlib
import itertools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fuzzing
from hostile import Site
from raw_worker import RawWorker
from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import operator_pb2 as operator_pb
from wire_calls import FEDERATION, OPERATOR, as_bytes, operator_status

pytestmark = pytest.mark.e2e
Code = grpc.StatusCode
BATCH, EXAMPLES = 20, 40
"""Calls under way at once, and batches per test; three tests make 2,400 inputs."""
HANG_SECONDS = 30.0
OPERATOR_REQUESTS = {
    "Status": operator_pb.StatusRequest,
    "Rounds": operator_pb.RoundsRequest,
    "Evaluations": operator_pb.EvaluationsRequest,
    "Clients": operator_pb.ClientsRequest,
    "Resume": operator_pb.ResumeRequest,
    "Revoke": operator_pb.RevokeRequest,
    "Version": operator_pb.VersionRequest,
    "Download": operator_pb.DownloadRequest,
}
"""Not Pause and Drain, which obey; not Watch, which goes on for ever."""
CALLS = ["Attend", "FetchBlob", "SubmitUpdate", *OPERATOR_REQUESTS]

patient = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("fuzz"), **{"limits.uploads_per_worker": 64}) as site:
        yield site


def fire(site: Site, worker: RawWorker, inputs: list[tuple[str, list[bytes]]]) -> None:
    """All at once over one channel; every call ends in time with a status somebody chose."""
    calls = []
    for name, messages in inputs:
        service = OPERATOR if name in OPERATOR_REQUESTS else FEDERATION
        if name in ("Attend", "SubmitUpdate"):
            method = worker.channel.stream_stream(f"{service}/{name}", as_bytes, bytes)
            request: Any = iter(messages)
        else:
            method = worker.channel.unary_stream(f"{service}/{name}", as_bytes, bytes)
            request = messages[0]
        calls.append((name, messages, method(request, metadata=worker.metadata(), timeout=HANG_SECONDS)))
    for name, messages, call in calls:
        with contextlib.suppress(grpc.RpcError):
            for _ in call:
                pass
        reason = dict(call.trailing_metadata() or ()).get("ssd-reason")
        # UNKNOWN is what an exception in a handler becomes, and a hang ends with the deadline.
        assert (call.code() is Code.OK) != bool(reason), (name, messages, call.code(), call.details())
        assert call.code() not in (Code.UNKNOWN, Code.INTERNAL), (name, messages, call.details())
    assert operator_status(worker.channel).phase == "training"


# -------------------------------------------------------------------------------------------------- inputs

WORDS = st.sampled_from(
    [
        "",
        "client-000",
        "client-003",
        "alpha",
        "../../x",
        "\0",
        "0" * 32,
        "f" * 64,
        "float16",
        "é" * 40,
        "9" * 300,
    ]
)
INTEGERS = st.sampled_from([0, 1, 2, 3, 7, 40, 127, 128, 65536, 1 << 20, (1 << 20) + 1, 1 << 31])
WIDE = st.sampled_from([(1 << 53) + 1, 1 << 63, (1 << 64) - 1])
FLOATS = st.sampled_from(
    [0.0, -1.0, 1e308, float("nan"), float("inf"), struct.unpack("<d", b"\1" + bytes(7))[0]]
)


def values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Anything a field of this type can hold, the awkward first."""
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            return messages(field.message_type._concrete_class)
        case FieldDescriptor.TYPE_STRING:
            return WORDS | st.text(max_size=20)
        case FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=100)
        case FieldDescriptor.TYPE_DOUBLE:
            return FLOATS
        case FieldDescriptor.TYPE_UINT64:
            return INTEGERS | WIDE
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.TYPE_ENUM:
            return st.integers(0, 4)
    return INTEGERS


@st.composite
def messages(draw: st.DrawFn, kind: type[Message]) -> Any:
    """A well-formed message of this kind with whatever fields."""
    message: Any = kind()
    for field in kind.DESCRIPTOR.fields:
        if not draw(st.booleans()):
            continue
        target = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            target.update(draw(st.dictionaries(st.text(max_size=5), FLOATS, max_size=3)))
        elif hasattr(target, "extend"):
            target.extend(draw(st.lists(values(field), max_size=4)))
        elif field.message_type is not None:
            target.CopyFrom(draw(values(field)))
        else:
            setattr(message, field.name, draw(values(field)))
    return message


REQUESTS = {
    "Attend": pb.WorkerMessage,
    "FetchBlob": pb.FetchBlobRequest,
    "SubmitUpdate": pb.UploadPart,
} | OPERATOR_REQUESTS


@st.composite
def well_formed(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    # A well-formed Revoke of a client that exists obeys, and would change the round.
    name = draw(st.sampled_from([call for call in CALLS if call != "Revoke"]))
    parts = draw(st.lists(messages(REQUESTS[name]), min_size=1, max_size=3))
    return name, [part.SerializeToString() for part in parts]


def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Some bytes flipped, cut out, doubled or put in."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(0, len(changed) - 1)))
        match draw(st.integers(0, 3)):
            case 0:
                changed[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del changed[place : place + draw(st.integers(1, 8))]
            case 2:
                changed[place:place] = changed[place : place + draw(st.integers(1, 40))]
            case _:
                changed[place:place] = draw(st.binary(max_size=12))
    return bytes(changed)


# --------------------------------------------------------------------------------------------------- tests


@patient
@given(inputs=st.lists(st.tuples(st.sampled_from(CALLS), st.lists(st.binary(max_size=200), min_size=1, max_size=3)),
                       min_size=BATCH, max_size=BATCH))  # fmt: skip
def test_random_bytes(site: Site, inputs: list[tuple[str, list[bytes]]]) -> None:
    fire(site, site.alpha, inputs)


@patient
@given(inputs=st.lists(well_formed(), min_size=BATCH, max_size=BATCH))
def test_messages_of_any_content(site: Site, inputs: list[tuple[str, list[bytes]]]) -> None:
    fire(site, site.alpha, inputs)


@patient
@given(data=st.data())
def test_mutations_of_proper_calls(site: Site, data: st.DataObject) -> None:
    """Proper in everything but the mutation, and in a statistic that is NaN: none of these updates may get in."""
    plan = site.alpha.plan
    assert plan is not None
    client = site.cohort[0]
    spoilt = bytearray(site.honest[client][0])
    spoilt[plan.codec.nbytes : plan.codec.nbytes + 8] = struct.pack("<d", float("nan"))
    hello = pb.Hello(protocol_min=1, protocol_max=1, worker="mallory", instance="a" * 32, build="x")
    proper: list[tuple[str, list[Message]]] = [
        ("Attend", [pb.WorkerMessage(hello=hello), pb.WorkerMessage(heartbeat=pb.Heartbeat(busy_share=0.5))]),
        (
            "SubmitUpdate",
            [
                pb.UploadPart(envelope=site.envelope(client, bytes(spoilt))),
                pb.UploadPart(chunk=pb.Chunk(offset=0, data=bytes(spoilt))),
            ],
        ),
        ("FetchBlob", [pb.FetchBlobRequest(digest=site.task.base.full.digest)]),
        ("Download", [operator_pb.DownloadRequest(digest=site.task.base.full.digest)]),
        ("Version", [operator_pb.VersionRequest(number=1)]),
    ]
    inputs = []
    for _ in range(BATCH):
        name, parts = data.draw(st.sampled_from(proper))
        inputs.append((name, [mutated(data.draw, part.SerializeToString()) for part in parts]))
    fire(site, site.alpha, inputs)


def test_ten_thousand_inputs_of_all_kinds(site: Site) -> None:
    """Structure-aware and mutated real traffic, in every state of every call; memory does not grow with them."""
    fuzzer = fuzzing.Fuzzer(seed=0, recorded=fuzzing.recorded(site))
    stream = fuzzer.inputs(10_000)
    before, count = 0.0, 0
    while batch := list(itertools.islice(stream, 40)):
        fuzzing.fire(site.alpha, batch)
        count += len(batch)
        if count == 2_000:
            before = site.federation.metric("ssd_coordinator_memory_peak_bytes")
    assert count == 10_000
    assert before
    assert site.federation.metric("ssd_coordinator_memory_peak_bytes") - before < 48 << 20
    site.federation.until(
        lambda: {each.worker for each in site.federation.status().workers} == {"alpha", "beta"},
        "every worker of the fuzzer is seen out",
    )


KEPT = fuzzing.corpus(Path(__file__).with_name("corpus"))


@pytest.mark.parametrize("kept", KEPT, ids=range(len(KEPT)))
def test_inputs_that_once_hurt_or_might_have(site: Site, kept: fuzzing.Input) -> None:
    fuzzing.fire(site.alpha, [kept])
    site.well()


def test_the_round_commits_as_if_nothing_had_happened(site: Site) -> None:
    site.check_end()
