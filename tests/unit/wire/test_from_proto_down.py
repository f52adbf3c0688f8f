"""Messages down arrive whole, and one that lacks what a worker relies on is malformed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd.privacy.settings import PrivacySettings
from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import tensor_pb2 as tensor
from ssd_wire import from_proto, messages
from ssd_wire.errors import Malformed
from ssd_wire.messages import UpdateKey
from ssd_wire.uploads import Continue, Go, Hold, UploadFate, Verdict

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
    return from_proto.down(pb.CoordinatorMessage(**kind))


def test_a_welcome_arrives_whole() -> None:
    got = down(welcome=welcome())
    assert isinstance(got, messages.Welcome)
    assert not got.individual_updates
    alone = down(welcome=welcome(individual_updates=True))
    assert isinstance(alone, messages.Welcome)
    assert alone.individual_updates
    assert got.held_fates == (messages.HeldFate.KEEP,)
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
        {"heartbeat_seconds": float("nan")},
        {"heartbeat_seconds": 1e-9},
        {"heartbeat_seconds": 0.0499},
        {"heartbeat_seconds": 3600.1},
        {"declaration": tensor.BlobRef(digest=DIGEST, size=(16 << 20) + 1)},
        {"max_cohort": 0},
        {"update_encoding": "bfloat16"},
        {"delta_encoding": ""},
        {"declaration_digest": "../../etc/passwd"},
        {"held_fates": [pb.HeldFate()]},
        {"version": None},
    ],
)
def test_a_welcome_that_lacks_something_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        down(welcome=welcome(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"round": 0},
        {"attempt": 0},
        {"threads": 0},
        {"threads": 1025},
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
    with pytest.raises(Malformed):
        down(train=train(**changes))


def test_a_delta_chain_with_a_gap_is_refused() -> None:
    broken = version(3)
    del broken.deltas[1]
    with pytest.raises(Malformed, match="gaps"):
        down(committed=pb.Committed(round=3, version=broken))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_malformed(raw: bytes) -> None:
    try:
        from_proto.down(from_proto.decode(pb.CoordinatorMessage, raw))
        from_proto.upload_reply(from_proto.decode(pb.UploadReply, raw))
    except Malformed:
        pass


def test_a_message_of_a_later_protocol_is_ignored() -> None:
    assert from_proto.down(from_proto.decode(pb.CoordinatorMessage, b"\xfa\x01\x00")) is None


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
        with pytest.raises(Malformed):
            down(evaluate=wrong)


def test_upload_replies() -> None:
    def reply(**kind: object) -> object:
        return from_proto.upload_reply(pb.UploadReply(**kind))

    assert reply(proceed=pb.Continue(offset=5)) == Continue(offset=5)
    assert reply(hold=pb.Hold(reason="x")) == Hold(reason="x")
    assert reply(go=pb.Go()) == Go()
    verdict = pb.Verdict(fate=pb.Verdict.FATE_DISCARDED, reason="too_late", detail="d")
    assert reply(verdict=verdict) == Verdict(fate=UploadFate.DISCARDED, reason="too_late", detail="d")
    assert from_proto.upload_reply(pb.UploadReply()) is None
    with pytest.raises(Malformed):
        reply(verdict=pb.Verdict())


def masked_welcome(**changes: object) -> pb.Welcome:
    fields = {
        "update_encoding": "float32",
        "secure_aggregation_level": "passive",
        "masking": pb.Masking(ring_bits=24, clip=0.5, max_client_weight=7),
    }
    return welcome(**(fields | changes))


def test_a_welcome_says_how_updates_are_masked() -> None:
    told = down(welcome=masked_welcome())
    assert isinstance(told, messages.Welcome)
    assert told.level == "passive"
    assert told.masking == messages.Masking(ring_bits=24, clip=0.5, max_client_weight=7)


PRIVACY = {"place": "central", "clip_norm": 2.0, "noise_multiplier": 0.5, "delta": 1e-5, "min_honest": 1}


def private_welcome(privacy: dict[str, object] | None = None, **changes: object) -> messages.Down | None:
    terms = pb.Privacy(**(PRIVACY | (privacy or {})))  # type: ignore[arg-type]
    fields = {"update_encoding": "float32", "max_client_weight": 1, "privacy": terms}
    return down(welcome=welcome(**(fields | changes)))


def test_a_welcome_says_how_one_clients_influence_is_hidden() -> None:
    told = private_welcome()
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
def test_a_welcome_that_contradicts_differential_privacy_is_malformed(
    privacy: dict[str, object], changes: dict[str, object]
) -> None:
    with pytest.raises(Malformed):
        private_welcome(privacy, **changes)


def test_a_welcome_that_says_nothing_of_secure_aggregation_means_off() -> None:
    told = down(welcome=welcome())
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
def test_a_welcome_that_contradicts_secure_aggregation_is_malformed(
    changes: dict[str, object],
) -> None:
    with pytest.raises(Malformed):
        down(welcome=masked_welcome(**changes))


def secure(**fields: object) -> messages.Down | None:
    return down(secure_aggregation=pb.SecureAggregation(**fields))


def test_a_message_of_secure_aggregation_is_passed_on_as_it_is() -> None:
    told = secure(round_id=b"r" * 16, message=b"\1\2")
    assert told == messages.SecureMessage(round_id=b"r" * 16, content=b"\1\2")
    blob = tensor.BlobRef(digest=DIGEST, size=300_000)
    told = secure(round_id=b"r" * 16, blob=blob)
    assert told == messages.SecureMessage(
        round_id=b"r" * 16, blob=messages.BlobRef(digest=DIGEST, size=300_000)
    )


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
def test_a_message_of_secure_aggregation_that_cannot_be_is_malformed(
    fields: dict[str, object],
) -> None:
    with pytest.raises(Malformed):
        secure(**fields)


@pytest.mark.parametrize("number", [1 << 62, 1 << 63, (1 << 64) - 1])
def test_a_version_that_no_database_can_hold_is_refused(number: int) -> None:
    """SQLite's integers end at 2**63 - 1; a worker that was told of such a version ended."""
    message = tensor.ModelVersion(
        number=number, model_digest=DIGEST, full=tensor.BlobRef(digest=DIGEST, size=8)
    )
    with pytest.raises(Malformed, match=r"2\*\*62"):
        from_proto.model_version(message)
