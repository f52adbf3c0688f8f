"""Protobuf to core types and back; malformed messages are the coordinator's fault."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd.privacy.settings import PrivacySettings
from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import tensor_pb2 as tensor
from worker.core import messages
from worker.core.messages import UpdateKey, UploadFate, Verdict
from worker.errors import CoordinatorFault
from worker.rpc import convert

DIGEST = "ab" * 32


def version(number: int = 2) -> tensor.ModelVersion:
    return tensor.ModelVersion(
        number=number,
        model_digest=DIGEST,
        full=tensor.BlobRef(digest=DIGEST, size=8),
        deltas=[
            tensor.Delta(number=n, blob=tensor.BlobRef(digest=DIGEST, size=2), model_digest=DIGEST)
            for n in range(1, number + 1)
        ],
    )


def welcome(**changes: object) -> pb.Welcome:
    fields = {
        "protocol": 1,
        "session": "s",
        "run_id": "r",
        "declaration": tensor.BlobRef(digest=DIGEST, size=3),
        "declaration_digest": DIGEST,
        "held_fates": [pb.HeldFate(fate=pb.HeldFate.FATE_KEEP)],
        "reinitialise": [pb.HostedClient(client="a", last_committed_round=4)],
        "heartbeat_seconds": 5.0,
        "update_encoding": "float16",
        "delta_encoding": "float32",
        "max_cohort": 3,
        "max_client_weight": 9,
        "version": version(),
    }
    return pb.Welcome(**(fields | changes))


def train(**changes: object) -> pb.Train:
    fields = {
        "round": 3,
        "attempt": 1,
        "base": version(),
        "task_digest": DIGEST,
        "threads": 1,
        "expected_clients": 3,
        "sample_digest": "5" * 64,
        "values": {"lr": 0.1},
        "clients": [
            pb.ClientTask(client="a", scaling=pb.ScalingVector(dimension=4, indices=[1, 2], alpha=2.0)),
            pb.ClientTask(client="b"),
        ],
    }
    return pb.Train(**(fields | changes))


def down(**kind: object) -> messages.Down | None:
    return convert.down(pb.CoordinatorMessage(**kind).SerializeToString())


def test_a_welcome_arrives_whole() -> None:
    got = down(welcome=welcome())
    assert isinstance(got, messages.Welcome)
    assert not got.individual_updates
    alone = down(welcome=welcome(individual_updates=True))
    assert isinstance(alone, messages.Welcome)
    assert alone.individual_updates
    assert got.held_fates == (messages.Fate.KEEP,)
    assert got.reinitialise == {"a": 4}
    assert [step.number for step in got.version.deltas] == [1, 2]


def test_a_task_arrives_whole() -> None:
    got = down(train=train())
    assert isinstance(got, messages.Train)
    assert got.values == {"lr": 0.1}
    first, second = got.clients
    assert first.scaling is not None
    assert first.scaling.indices == (1, 2)
    assert second.scaling is None
    assert (got.expected_clients, got.sample_digest) == (3, "5" * 64)
    assert got.key("a") == UpdateKey(client="a", round=3, base_digest=DIGEST, task_digest=DIGEST)


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": 2},
        {"session": ""},
        {"run_id": ""},
        {"heartbeat_seconds": 0.0},
        {"heartbeat_seconds": float("inf")},
        {"max_cohort": 0},
        {"update_encoding": "bfloat16"},
        {"delta_encoding": ""},
        {"declaration_digest": "../../etc/passwd"},
        {"held_fates": [pb.HeldFate()]},
        {"version": None},
    ],
)
def test_a_welcome_that_lacks_something_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(CoordinatorFault):
        down(welcome=welcome(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"round": 0},
        {"attempt": 0},
        {"threads": 0},
        {"base": None},
        {"task_digest": "AB" * 32},
        {"clients": []},
        {"clients": [pb.ClientTask(client="a"), pb.ClientTask(client="a")]},
        {"values": {"lr": float("nan")}},
        {
            "clients": [
                pb.ClientTask(client="a", scaling=pb.ScalingVector(dimension=2, indices=[5], alpha=1.0))
            ]
        },
        {"artefacts": [tensor.Artefact(name="x", blob=tensor.BlobRef(digest=DIGEST, size=8), shape=[3])]},
        {"artefacts": [tensor.Artefact(name="x", blob=tensor.BlobRef(digest=DIGEST, size=8), shape=[2])] * 2},
        {"expected_clients": 0},
    ],
)
def test_a_task_that_lacks_something_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(CoordinatorFault):
        down(train=train(**changes))


def test_a_delta_chain_with_a_gap_is_refused() -> None:
    broken = version(3)
    del broken.deltas[1]
    with pytest.raises(CoordinatorFault, match="gaps"):
        down(committed=pb.Committed(round=3, version=broken))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_the_coordinators_fault(raw: bytes) -> None:
    try:
        convert.down(raw)
        convert.upload_reply(raw)
    except CoordinatorFault:
        pass


def test_a_message_of_a_later_protocol_is_ignored() -> None:
    assert convert.down(b"\xfa\x01\x00") is None


def test_small_messages_down() -> None:
    assert down(flush=pb.Flush(round=1, attempt=2)) == messages.Flush(round=1, attempt=2)
    assert down(cancel=pb.Cancel(round=1, attempt=2, reason="x")) == messages.Cancel(
        round=1, attempt=2, reason="x"
    )
    assert down(drain=pb.Drain(reason="x", reconnect_after_seconds=2.0)) == messages.Drain(
        reason="x", reconnect_after_seconds=2.0
    )
    assert down(run_changed=pb.RunChanged(reason="x", finished=True)) == messages.RunChanged(
        reason="x", finished=True
    )
    got = down(evaluate=pb.Evaluate(version=version(), run_seed=9))
    assert isinstance(got, messages.Evaluate)
    assert (got.run_seed, got.clients, got.threads) == (9, (), 1)
    scaled = pb.ClientTask(client="b", scaling=pb.ScalingVector(dimension=4, indices=[1], alpha=2.0))
    got = down(
        evaluate=pb.Evaluate(version=version(), clients=[pb.ClientTask(client="a"), scaled], threads=2)
    )
    assert isinstance(got, messages.Evaluate)
    assert [task.client for task in got.clients] == ["a", "b"]
    assert got.clients[1].scaling is not None
    assert got.threads == 2
    for wrong in (
        pb.Evaluate(version=version(), clients=[scaled, scaled], threads=1),
        pb.Evaluate(version=version(), clients=[scaled]),
    ):
        with pytest.raises(CoordinatorFault):
            down(evaluate=wrong)


def test_the_hello_says_what_the_session_decided() -> None:
    hello = messages.Hello(
        run_id="r",
        clients={"b": 2, "a": 0},
        versions_held=(3, 4),
        held=(UpdateKey(client="a", round=1, base_digest="x", task_digest="y"),),
    )
    (raw,) = convert.hello(
        hello, worker="w", instance="i", build="v", evaluates=True, labels=True, client_tests=True,
        device="cuda", memory=7,
    )  # fmt: skip
    got = pb.WorkerMessage.FromString(raw).hello
    assert (got.protocol_min, got.protocol_max) == (1, 1)
    assert [(c.client, c.last_committed_round) for c in got.clients] == [("a", 0), ("b", 2)]
    assert list(got.versions_held) == [3, 4]
    assert got.held_updates[0] == pb.HeldUpdate(client="a", round=1, base_digest="x", task_digest="y")
    assert got.capabilities == pb.Capabilities(
        evaluates=True, labels=True, client_tests=True, device="cuda", device_memory=7
    )


def test_a_long_hello_comes_in_parts_that_lose_nothing_and_stay_small() -> None:
    names = [f"{index:0128d}" for index in range(5000)]
    held = tuple(
        UpdateKey(client=name, round=2**63, base_digest="b" * 64, task_digest="t" * 64)
        for name in names[:4500]
    )
    hello = messages.Hello(run_id="r", clients=dict.fromkeys(names, 2**63), versions_held=(1,), held=held)
    parts = convert.hello(
        hello, worker="w", instance="i", build="v", evaluates=False, labels=False, client_tests=False,
        device="cpu", memory=0,
    )  # fmt: skip
    assert max(map(len, parts)) < 1 << 20
    got = [pb.WorkerMessage.FromString(part).hello for part in parts]
    assert [part.more for part in got] == [True, True, False]
    assert [client.client for part in got for client in part.clients] == names
    assert [each.client for part in got for each in part.held_updates] == names[:4500]
    assert [part.worker for part in got] == ["w", "", ""]


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (messages.Heartbeat(uptime_seconds=1, device_memory_used=2, busy_share=0.5), "heartbeat"),
        (messages.Progress(round=1, attempt=1, client="a", step=2, steps=3, seconds=0.1), "progress"),
        (messages.TaskFailed(round=1, attempt=1, client="a", reason="x", detail="y"), "task_failed"),
        (messages.VersionHeld(number=1, model_digest="d"), "version_held"),
        (
            messages.EvaluationDone(version=1, values={"x": 1.0}, error="e", clients=("a", "b")),
            "evaluation_done",
        ),
    ],
)
def test_messages_up_carry_every_field(message: messages.Up, kind: str) -> None:
    got = pb.WorkerMessage.FromString(convert.up(message))
    assert got.WhichOneof("kind") == kind
    inner = getattr(got, kind)
    for name in message.__slots__:
        value = getattr(inner, name)
        kinds = {"values": dict, "clients": tuple}
        assert (kinds[name](value) if name in kinds else value) == getattr(message, name)


def test_an_answer_about_clients_is_told_from_one_about_probe_data_even_if_it_names_nobody() -> None:
    for clients, on_clients in ((None, False), ((), True), (("a",), True)):
        raw = convert.up(messages.EvaluationDone(version=1, clients=clients))
        got = pb.WorkerMessage.FromString(raw).evaluation_done
        assert (tuple(got.clients), got.on_clients) == (clients or (), on_clients)


def test_equal_envelopes_have_equal_bytes_and_every_field() -> None:
    envelope = messages.Envelope(
        run_id="r",
        round=1,
        attempt=2,
        base_digest="b",
        spec_digest="s",
        task_digest="t",
        fold=True,
        clients=(("a", 3, 0.5), ("b", 4, 0.25)),
        body_size=10,
        chunk_digests=b"x" * 32,
    )
    raw = convert.envelope(envelope)
    assert raw == convert.envelope(envelope)
    got = pb.UploadPart.FromString(raw).envelope
    assert got.kind == pb.Envelope.KIND_FOLD
    assert [(c.client, c.weight, c.training_seconds) for c in got.clients] == list(envelope.clients)
    assert (got.body_size, got.chunk_digests, got.attempt) == (10, b"x" * 32, 2)


def test_upload_replies() -> None:
    def reply(**kind: object) -> object:
        return convert.upload_reply(pb.UploadReply(**kind).SerializeToString())

    assert reply(proceed=pb.Continue(offset=5)) == 5
    assert reply(hold=pb.Hold(reason="x")) is True
    assert reply(go=pb.Go()) is False
    verdict = pb.Verdict(fate=pb.Verdict.FATE_DISCARDED, reason="too_late", detail="d")
    assert reply(verdict=verdict) == Verdict(fate=UploadFate.DISCARDED, reason="too_late", detail="d")
    assert convert.upload_reply(b"") is None
    with pytest.raises(CoordinatorFault):
        reply(verdict=pb.Verdict())


def masked_welcome(**changes: object) -> pb.Welcome:
    fields = {
        "update_encoding": "float32",
        "secure_aggregation_level": "passive",
        "masking": pb.Masking(ring_bits=24, clip=0.5, max_client_weight=7),
    }
    return welcome(**(fields | changes))


def test_a_welcome_says_how_updates_are_masked() -> None:
    told = convert.down(pb.CoordinatorMessage(welcome=masked_welcome()).SerializeToString())
    assert isinstance(told, messages.Welcome)
    assert told.level == "passive"
    assert told.masking == messages.Masking(ring_bits=24, clip=0.5, max_client_weight=7)


PRIVACY = {"place": "central", "clip_norm": 2.0, "noise_multiplier": 0.5, "delta": 1e-5, "min_honest": 1}


def private_welcome(privacy: dict[str, object] | None = None, **changes: object) -> bytes:
    terms = pb.Privacy(**(PRIVACY | (privacy or {})))  # type: ignore[arg-type]
    fields = {"update_encoding": "float32", "max_client_weight": 1, "privacy": terms}
    return pb.CoordinatorMessage(welcome=welcome(**(fields | changes))).SerializeToString()


def test_a_welcome_says_how_one_clients_influence_is_hidden() -> None:
    told = convert.down(private_welcome())
    assert isinstance(told, messages.Welcome)
    assert told.privacy == PrivacySettings.from_json(PRIVACY)
    assert told.clip_norm == 2.0


@pytest.mark.parametrize(
    ("privacy", "changes"),
    [
        ({"place": "nowhere"}, {}),
        ({"place": "distributed", "min_honest": 2}, {}),
        (
            {},
            {
                "secure_aggregation_level": "passive",
                "masking": pb.Masking(ring_bits=24, clip=1, max_client_weight=1),
            },
        ),
        ({"clip_norm": 0.0}, {}),
        ({"clip_norm": float("nan")}, {}),
        ({"clip_norm": float("inf")}, {}),
        ({"noise_multiplier": -1.0}, {}),
        ({"noise_multiplier": float("nan")}, {}),
        ({"delta": 1.0}, {}),
        ({"min_honest": 0}, {}),
        ({}, {"update_encoding": "float16"}),
        ({}, {"max_client_weight": 2}),
        ({}, {"individual_updates": True}),
    ],
)
def test_a_welcome_that_contradicts_differential_privacy_is_the_coordinators_fault(
    privacy: dict[str, object], changes: dict[str, object]
) -> None:
    with pytest.raises(CoordinatorFault):
        convert.down(private_welcome(privacy, **changes))


def test_a_welcome_that_says_nothing_of_secure_aggregation_means_off() -> None:
    told = convert.down(pb.CoordinatorMessage(welcome=welcome()).SerializeToString())
    assert isinstance(told, messages.Welcome)
    assert (told.level, told.masking) == ("off", None)


@pytest.mark.parametrize(
    "changes",
    [
        {"secure_aggregation_level": "secure"},
        {"masking": None},
        {"masking": pb.Masking(ring_bits=20, clip=0.5, max_client_weight=7)},
        {"masking": pb.Masking(ring_bits=24, clip=0.0, max_client_weight=7)},
        {"masking": pb.Masking(ring_bits=24, clip=float("nan"), max_client_weight=7)},
        {"masking": pb.Masking(ring_bits=24, clip=float("inf"), max_client_weight=7)},
        {"masking": pb.Masking(ring_bits=24, clip=0.5)},
        {"update_encoding": "float16"},
        {"individual_updates": True},
    ],
)
def test_a_welcome_that_contradicts_secure_aggregation_is_the_coordinators_fault(
    changes: dict[str, object],
) -> None:
    raw = pb.CoordinatorMessage(welcome=masked_welcome(**changes)).SerializeToString()
    with pytest.raises(CoordinatorFault):
        convert.down(raw)


def secure(**fields: object) -> bytes:
    return pb.CoordinatorMessage(secure_aggregation=pb.SecureAggregation(**fields)).SerializeToString()


def test_a_message_of_secure_aggregation_is_passed_on_as_it_is() -> None:
    told = convert.down(secure(round_id=b"r" * 16, message=b"\1\2"))
    assert told == messages.SecureMessage(round_id=b"r" * 16, content=b"\1\2")
    blob = tensor.BlobRef(digest=DIGEST, size=300_000)
    told = convert.down(secure(round_id=b"r" * 16, blob=blob))
    assert told == messages.SecureMessage(round_id=b"r" * 16, blob=messages.Blob(digest=DIGEST, size=300_000))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"round_id": b"r" * 16},
        {"round_id": b"r" * 15, "message": b"m"},
        {"round_id": b"r" * 17, "message": b"m"},
        {"round_id": b"r" * 16, "message": b"m" * ((256 << 10) + 1)},
        {"round_id": b"r" * 16, "message": b"m", "blob": tensor.BlobRef(digest=DIGEST, size=1)},
        {"round_id": b"r" * 16, "blob": tensor.BlobRef(digest=DIGEST, size=0)},
        {"round_id": b"r" * 16, "blob": tensor.BlobRef(digest=DIGEST, size=(4 << 20) + 1)},
        {"round_id": b"r" * 16, "blob": tensor.BlobRef(digest="../x", size=1)},
    ],
)
def test_a_message_of_secure_aggregation_that_cannot_be_is_the_coordinators_fault(
    fields: dict[str, object],
) -> None:
    with pytest.raises(CoordinatorFault):
        convert.down(secure(**fields))


def test_an_answer_goes_up_inline() -> None:
    raw = convert.up(messages.SecureMessage(round_id=b"r" * 16, content=b"answer"))
    told = pb.WorkerMessage.FromString(raw).secure_aggregation
    assert (told.round_id, told.message, told.HasField("blob")) == (b"r" * 16, b"answer", False)


def test_a_masked_upload_says_whose_masks_it_wears_and_no_weight() -> None:
    envelope = messages.Envelope(
        run_id="r",
        round=1,
        attempt=2,
        base_digest=DIGEST,
        spec_digest=DIGEST,
        task_digest=DIGEST,
        fold=False,
        clients=(("a", 0, 1.5),),
        body_size=3,
        chunk_digests=b"d" * 32,
        secure_round=b"r" * 16,
        sharers_digest=b"s" * 32,
    )
    told = pb.UploadPart.FromString(convert.envelope(envelope)).envelope
    assert told.kind == pb.Envelope.KIND_MASKED
    assert (told.secure_round, told.sharers_digest) == (b"r" * 16, b"s" * 32)
    assert [(each.client, each.weight) for each in told.clients] == [("a", 0)]
