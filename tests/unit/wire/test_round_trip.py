"""Every message comes back from protobuf as it went in, and every field is written under its own name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import Enum
from typing import Any, get_args

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from ssd.privacy.settings import NoisePlace, PrivacySettings
from ssd.scaling import ScalingVector
from ssd_proto.v1 import federation_pb2 as pb
from ssd_wire import from_proto, messages, to_proto, uploads

u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
u62 = st.integers(0, 2**62 - 1)
"""What a worker's database can count."""
positive = st.integers(1, 2**32 - 1)
doubles = st.floats(allow_nan=False)
finite = st.floats(allow_nan=False, allow_infinity=False)
above_zero = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)
text = st.text(st.characters(codec="utf-8"), max_size=8)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
names = st.text("abcdef-_.", min_size=1, max_size=4)
clients = st.dictionaries(names, u64, max_size=3)
flags = st.booleans()


def tuples(of: st.SearchStrategy[Any], least: int = 0) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, min_size=least, max_size=3).map(tuple)


def apart(by: Callable[[Any], Any], of: st.SearchStrategy[Any], least: int = 0) -> st.SearchStrategy[Any]:
    return st.lists(of, min_size=least, max_size=3, unique_by=by).map(tuple)


blobs = st.builds(messages.BlobRef, digest=digests, size=u64)


@st.composite
def model_versions(draw: st.DrawFn) -> messages.ModelVersion:
    number = draw(st.integers(3, 2**32))
    steps = range(number - draw(st.integers(0, 3)) + 1, number + 1)
    deltas = [messages.Delta(number=n, blob=draw(blobs), model_digest=draw(digests)) for n in steps]
    return messages.ModelVersion(
        number=number, model_digest=draw(digests), full=draw(blobs), deltas=tuple(deltas)
    )


@st.composite
def artefacts(draw: st.DrawFn) -> messages.Artefact:
    rows, columns = draw(st.integers(1, 99)), draw(st.integers(1, 99))
    blob = messages.BlobRef(digest=draw(digests), size=4 * rows * columns)
    return messages.Artefact(name=draw(names), blob=blob, shape=(rows, columns))


@st.composite
def scaling_vectors(draw: st.DrawFn) -> ScalingVector:
    dimension = draw(st.integers(1, 64))
    indices = draw(st.lists(st.integers(0, dimension - 1), unique=True, max_size=dimension))
    return ScalingVector(
        dimension=dimension, indices=tuple(sorted(indices)), alpha=draw(st.floats(0.5, 20.0))
    )


task_clients = st.builds(messages.TaskClient, client=names, scaling=st.none() | scaling_vectors())
updates = st.builds(messages.UpdateKey, client=text, round=u64, base_digest=text, task_digest=text)
cohorts = apart(lambda each: each.client, task_clients, least=1)
arrays = apart(lambda each: each.name, artefacts())


@st.composite
def welcomes(draw: st.DrawFn) -> messages.Welcome:
    level = draw(st.sampled_from(["off", "passive", "active"]))
    private = draw(flags)
    place = NoisePlace.CENTRAL if level == "off" else NoisePlace.DISTRIBUTED
    masking = st.builds(
        messages.Masking,
        ring_bits=st.sampled_from([16, 24, 32]),
        clip=above_zero,
        max_client_weight=positive,
    )
    terms = st.builds(
        PrivacySettings,
        place=st.just(place),
        clip_norm=st.floats(0.1, 100),
        noise_multiplier=st.floats(0.1, 10),
        delta=st.floats(1e-9, 1e-3),
        min_honest=st.just(1) if level == "off" else st.integers(2, 9),
    )
    encodings = st.sampled_from(["float32", "float16", "int8"])
    strict = level != "off" or private
    return messages.Welcome(
        protocol=1,
        session=draw(names),
        run_id=draw(names),
        declaration=draw(st.builds(messages.BlobRef, digest=digests, size=st.integers(0, 16 << 20))),
        declaration_digest=draw(digests),
        held_fates=draw(tuples(st.sampled_from(messages.HeldFate))),
        reinitialise=draw(clients),
        data_endpoints=draw(tuples(text)),
        heartbeat_seconds=draw(st.floats(min_value=0.05, max_value=3600.0)),
        update_encoding="float32" if strict else draw(encodings),
        delta_encoding=draw(encodings),
        max_cohort=draw(positive),
        max_client_weight=1 if private else draw(positive),
        max_upload_bytes=draw(u64),
        version=draw(model_versions()),
        build=draw(text),
        individual_updates=False if strict else draw(flags),
        level=level,
        masking=None if level == "off" else draw(masking),
        privacy=draw(terms) if private else None,
    )


@st.composite
def envelopes(draw: st.DrawFn) -> uploads.Envelope:
    kind = draw(st.sampled_from(uploads.UploadKind))
    masked = kind is uploads.UploadKind.MASKED
    weighted = st.builds(
        uploads.WeightedClient,
        client=text,
        weight=st.just(0) if masked else u64,
        training_seconds=st.floats(0, 1e7),
    )
    return uploads.Envelope(
        run_id=draw(text),
        round=draw(u64),
        attempt=draw(u32),
        base_digest=draw(text),
        spec_digest=draw(text),
        task_digest=draw(text),
        kind=kind,
        clients=draw(tuples(weighted)),
        body_size=draw(u64),
        chunk_digests=draw(tuples(st.binary(min_size=32, max_size=32))),
        secure_round=draw(st.binary(min_size=16, max_size=16)) if masked else b"",
        sharers_digest=draw(st.binary(min_size=32, max_size=32)) if masked else b"",
    )


hellos = st.builds(
    messages.Hello,
    worker=text,
    instance=text,
    clients=clients,
    run_id=text,
    versions_held=tuples(u64),
    held_updates=tuples(updates),
    newest=st.tuples(u64, text),
    capabilities=st.builds(
        messages.Capabilities,
        evaluates=flags,
        device=st.sampled_from(["cpu", "cuda", "other"]),
        device_memory=u64,
        labels=flags,
        client_tests=flags,
    ),
    protocol=st.tuples(u32, u32),
    build=text,
)
UP: dict[type, st.SearchStrategy[Any]] = {
    messages.Heartbeat: st.builds(
        messages.Heartbeat, uptime_seconds=u64, device_memory_used=u64, busy_share=doubles
    ),
    messages.Progress: st.builds(
        messages.Progress, round=u64, attempt=u32, client=text, step=u64, steps=u64, seconds=doubles
    ),
    messages.TaskFailed: st.builds(
        messages.TaskFailed, round=u64, attempt=u32, client=text, reason=text, detail=text
    ),
    messages.VersionHeld: st.builds(messages.VersionHeld, number=u64, model_digest=text),
    messages.EvaluationDone: st.builds(
        messages.EvaluationDone,
        version=u64,
        values=st.dictionaries(names, doubles, max_size=3),
        error=text,
        clients=st.none() | tuples(text),
    ),
    messages.ClientsChanged: st.builds(messages.ClientsChanged, clients=clients),
    messages.SecureMessage: st.builds(
        messages.SecureMessage, round_id=st.binary(max_size=20), content=st.binary(max_size=20)
    ),
}
round_ids = st.binary(min_size=16, max_size=16)
DOWN: dict[type, st.SearchStrategy[Any]] = {
    messages.Welcome: welcomes(),
    messages.Train: st.builds(
        messages.Train,
        round=positive,
        attempt=positive,
        base=model_versions(),
        task_digest=digests,
        run_seed=u64,
        rounds=u62,
        values=st.dictionaries(names, finite, max_size=3),
        threads=st.integers(1, 1024),
        clients=cohorts,
        artefacts=arrays,
        quality=flags,
        expected_clients=positive,
        sample_digest=text,
        upload_within_seconds=doubles,
    ),
    messages.Flush: st.builds(messages.Flush, round=u64, attempt=u32),
    messages.Evaluate: st.builds(
        messages.Evaluate,
        version=model_versions(),
        run_seed=u64,
        clients=cohorts | st.just(()),
        artefacts=arrays,
        threads=st.integers(1, 1024),
    ),
    messages.Cancel: st.builds(messages.Cancel, round=u64, attempt=u32, reason=text),
    messages.Drain: st.builds(messages.Drain, reason=text, reconnect_after_seconds=doubles),
    messages.Committed: st.builds(
        messages.Committed, round=u64, version=model_versions(), included=tuples(text)
    ),
    messages.RunChanged: st.builds(messages.RunChanged, reason=text, finished=flags),
    messages.SecureMessage: st.builds(
        messages.SecureMessage, round_id=round_ids, content=st.binary(min_size=1, max_size=20)
    )
    | st.builds(
        messages.SecureMessage,
        round_id=round_ids,
        blob=st.builds(messages.BlobRef, digest=digests, size=st.integers(1, 4 << 20)),
    ),
}
REPLIES: dict[type, st.SearchStrategy[Any]] = {
    uploads.Continue: st.builds(uploads.Continue, offset=u64),
    uploads.Hold: st.builds(uploads.Hold, reason=text),
    uploads.Go: st.builds(uploads.Go),
    uploads.Verdict: st.builds(
        uploads.Verdict, fate=st.sampled_from(uploads.UploadFate), reason=text, detail=text
    ),
}


def sent(message: Message) -> Any:
    """What the other side parses."""
    return type(message).FromString(message.SerializeToString())


def check_names(record: Any, message: Message) -> None:
    """A field that both have under one name has one value: two that are swapped both ways would come back well."""
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if field.name in type(message).DESCRIPTOR.fields_by_name and type(value) in (
            int, float, bool, str, bytes
        ):  # fmt: skip
            assert getattr(message, field.name) == value


@pytest.mark.parametrize(
    ("union", "made", "wire"),
    [
        (messages.Up, UP, pb.WorkerMessage),
        (messages.Down, DOWN, pb.CoordinatorMessage),
        (uploads.UploadReply, REPLIES, pb.UploadReply),
    ],
)
def test_no_kind_of_message_is_forgotten(union: Any, made: dict[type, Any], wire: type[Message]) -> None:
    kinds = {field.name for field in wire.DESCRIPTOR.oneofs_by_name["kind"].fields}
    assert set(made) == set(get_args(union))
    # The hello comes once, in parts of its own.
    assert len(made) == len(kinds - {"hello"})


@pytest.mark.parametrize("kind", UP, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_a_message_up_comes_back_as_it_was(kind: type, data: st.DataObject) -> None:
    message = data.draw(UP[kind])
    wire = sent(to_proto.up(message))
    assert from_proto.up(wire) == message
    check_names(message, getattr(wire, wire.WhichOneof("kind")))


@pytest.mark.parametrize("kind", DOWN, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_a_message_down_comes_back_as_it_was(kind: type, data: st.DataObject) -> None:
    message = data.draw(DOWN[kind])
    wire = sent(to_proto.down(message))
    assert from_proto.down(wire) == message
    check_names(message, getattr(wire, wire.WhichOneof("kind")))


@pytest.mark.parametrize("kind", REPLIES, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_a_reply_to_an_upload_comes_back_as_it_was(kind: type, data: st.DataObject) -> None:
    message = data.draw(REPLIES[kind])
    wire = sent(to_proto.upload_reply(message))
    assert from_proto.upload_reply(wire) == message
    check_names(message, getattr(wire, wire.WhichOneof("kind")))


@given(hellos)
def test_a_hello_comes_back_as_it_was(message: messages.Hello) -> None:
    (part,) = to_proto.hello(message)
    wire = sent(part)
    assert from_proto.hello(wire) == message
    check_names(message, wire)
    check_names(message.capabilities, wire.capabilities)
    assert (wire.protocol_min, wire.protocol_max) == message.protocol


@given(envelopes())
def test_an_envelope_comes_back_as_it_was_and_keeps_its_hash(message: uploads.Envelope) -> None:
    wire = sent(to_proto.envelope(message))
    again = from_proto.envelope(wire)
    assert again == message
    # A broken upload is found again by its envelope.
    assert hash(again) == hash(message)
    check_names(message, wire)
    for one, other in zip(message.clients, wire.clients, strict=True):
        check_names(one, other)


def test_fates_and_kinds_are_named_alike_on_both_sides() -> None:
    for fate, number in to_proto.HELD_FATES.items():
        assert pb.HeldFate.Fate.Name(number) == f"FATE_{fate.name}"
    for verdict, number in to_proto.UPLOAD_FATES.items():
        assert pb.Verdict.Fate.Name(number) == f"FATE_{verdict.name}"
    for kind, number in to_proto.UPLOAD_KINDS.items():
        assert pb.Envelope.Kind.Name(number) == f"KIND_{kind.name}"
    tables: list[tuple[type[Enum], Any]] = [
        (messages.HeldFate, to_proto.HELD_FATES),
        (uploads.UploadFate, to_proto.UPLOAD_FATES),
        (uploads.UploadKind, to_proto.UPLOAD_KINDS),
    ]
    for members, table in tables:
        assert set(table) == set(members)
