"""A worker under secure aggregation that is lied to, told what it does not accept, or left: it refuses, and goes on."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secure.key_uses import KeyUses
from secure.secure_identities import SecureIdentities
from secure.secure_scene import OWN, Scene, secure_federation
from secure.worker_rounds import ENDED, contents, play, refusal, retry, silent, whole_round
from ssd.method.registry import load
from ssd.secagg.numbers.config_digest import config_digest
from ssd.secagg.numbers.masked_fold import MaskedFold
from ssd.secagg.numbers.masked_plan import MaskedPlan, MaskedSettings
from ssd.secagg.numbers.masking import MaskKey
from ssd.secagg.protocol.errors import AbortReason
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import (
    AbortNotice,
    Advert,
    Message,
    Roster,
    ShareBundle,
    Survivors,
    encode,
)
from ssd.secagg.protocol.policy import ParticipantPolicy
from ssd.updates.codec import Encoding
from ssd.updates.fold_plan import FoldPlan
from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import tensor_pb2 as tensor
from wire.fake_coordinator import Upload
from worker.core.state import SecureTerms
from worker.errors import RefusedForGood
from worker.secure_aggregation.identity import SecureIdentity
from worker.secure_aggregation.rounds import SecureSettings


def unknown_kind(_: Scene) -> bytes:
    return b"\1\x63"


def huge_list(_: Scene) -> bytes:
    return encode(Roster(adverts=()))[:2] + (1 << 31).to_bytes(4, "big")


def early_survivors(scene: Scene) -> bytes:
    return encode(Survivors(sharers_digest=bytes(32), names=("p1", OWN)))


def an_advert(scene: Scene) -> bytes:
    return encode(
        Advert(
            name="p1",
            channel_key=bytes(32),
            mask_key=bytes(32),
            nonce=bytes(32),
            commitment=bytes(32),
            signature=b"",
        )
    )


def empty_roster(_: Scene) -> bytes:
    return encode(Roster(adverts=()))


def another_offer(scene: Scene) -> bytes:
    return encode(replace(scene.offer, gamma_ppm=1))


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (unknown_kind, "malformed_message"),
        (huge_list, "malformed_message"),
        (an_advert, "malformed_message"),
        (early_survivors, "unexpected_message"),
        (empty_roster, "roster_size"),
        (another_offer, "unexpected_message"),
    ],
)
@pytest.mark.parametrize("blob", [False, True])
def test_a_lie_ends_the_round_here_and_the_next_attempt_goes_on(
    tmp_path: Path, lie: Callable[[Scene], bytes], reason: str, blob: bool
) -> None:
    async def scene() -> None:
        async with secure_federation(tmp_path) as (coordinator, worker):
            attended = await coordinator.attended()
            scene = Scene(coordinator, attended, coordinator.train(["a", "b"]))
            scene.begin()
            await scene.ask(scene.offer)
            scene.say_bytes(lie(scene), blob=blob)
            assert (await refusal(scene)).reason == reason
            await worker.until(lambda: len(worker.driver.session.held) == 2)
            # A roster that would have been right comes too late.
            scene.say(empty_roster_message())
            await silent(coordinator)
            labels = {"outcome": "refused", "reason": reason}
            assert worker.sample("ssd_worker_secure_aggregation_aborts_total", **labels) == 1
            await whole_round(retry(coordinator, attended, scene), worker, ["a", "b"])

    play(scene)


def empty_roster_message() -> Message:
    return Roster(adverts=())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_digest": bytes(32)}, "model_differs"),
        ({"config_digest": bytes(32)}, "config_differs"),
        ({"ring_bits": 32}, "terms_changed"),
        ({"max_total_weight": 1}, "terms_changed"),
        ({"participants": 1000}, "terms_changed"),
        ({"participants": 1}, "policy_participants"),
        ({"delta_ppm": 900_000}, "policy_dropout"),
    ],
)
def test_an_offer_that_is_not_what_this_host_was_told_is_refused(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    async def scene() -> None:
        async with secure_federation(tmp_path) as (coordinator, worker):
            attended = await coordinator.attended()
            scene = Scene(coordinator, attended, coordinator.train(["a", "b"]))
            scene.begin()
            scene.say(replace(scene.offer, **changes))  # type: ignore[arg-type]
            assert (await refusal(scene)).reason == reason
            assert not worker.store.secure.seen(scene.offer.round_id)
            await silent(coordinator)

    play(scene)


def test_a_passive_offer_in_an_active_run_is_refused(tmp_path: Path) -> None:
    identities = SecureIdentities(tmp_path / "identities", (OWN, "p1", "p2"))
    settings = SecureSettings(
        policy=ParticipantPolicy(level=Level.PASSIVE), identity=identities.identity(OWN)
    )

    async def scene() -> None:
        async with secure_federation(
            tmp_path / "s", level="active", secure=settings, terms=SecureTerms(cannot_sign="")
        ) as (coordinator, _):
            attended = await coordinator.attended()
            scene = Scene(coordinator, attended, coordinator.train(["a", "b"]))
            scene.begin()
            scene.say(scene.offer)
            assert (await refusal(scene)).reason == AbortReason.TERMS_CHANGED

    play(scene)


def test_a_clip_other_than_that_of_the_welcome_is_refused(tmp_path: Path) -> None:
    """It stands in no field of the offer: the settings' digest gives it away."""

    async def scene() -> None:
        async with secure_federation(tmp_path) as (coordinator, worker):
            attended = await coordinator.attended()
            scene = Scene(coordinator, attended, coordinator.train(["a", "b"]))
            settings = replace(scene.plan.settings, clip=2 * scene.plan.settings.clip)
            other = MaskedPlan.create(coordinator.plan, settings)
            assert other.max_total_weight == scene.plan.max_total_weight
            scene.begin()
            scene.say(
                replace(scene.offer, config_digest=config_digest(other.digest, scene.train.task_digest))
            )
            assert (await refusal(scene)).reason == AbortReason.CONFIG_DIFFERS
            assert not worker.store.secure.seen(scene.offer.round_id)

    play(scene)


@pytest.mark.parametrize(
    "lie",
    [
        {"values": {"lr": 0.0}},
        {"rounds": 3},
        {"run_seed": 12},
        {
            "artefacts": [
                tensor.Artefact(name="basis", blob=tensor.BlobRef(digest="0" * 64, size=4), shape=[1])
            ]
        },
    ],
)
def test_a_task_that_differs_from_what_the_others_were_told_is_not_worked_at(
    tmp_path: Path, lie: dict[str, Any]
) -> None:
    """Were all but one told to train with rate 0 under one digest, their sum would be that one's update."""

    async def scene() -> None:
        async with secure_federation(tmp_path) as (coordinator, worker):
            attended = await coordinator.attended()
            honest = coordinator.train(["a", "b"])
            lied = coordinator.train(["a", "b"], task_digest=honest.task_digest, **lie)
            scene = Scene(coordinator, attended, lied)
            scene.begin()
            scene.say(scene.offer)
            # It hangs up before it makes a key, and comes again; what is true then is done.
            attended = await coordinator.attended()
            await silent(coordinator)
            assert not worker.store.secure.seen(scene.offer.round_id)
            await whole_round(Scene(coordinator, attended, honest), worker, ["a", "b"])

    play(scene)


def test_a_message_that_cannot_be_fetched_or_is_another_one_is_refused(tmp_path: Path) -> None:
    async def scene() -> None:
        async with secure_federation(tmp_path) as (coordinator, _):
            attended = await coordinator.attended()
            scene = Scene(coordinator, attended, coordinator.train(["a", "b"]))
            scene.begin()
            await scene.ask(scene.offer)
            named = coordinator.keep_blob(b"what was named")
            coordinator.blobs[named.digest] = b"what is served"
            attended.send(secure_aggregation=pb.SecureAggregation(round_id=scene.offer.round_id, blob=named))
            assert (await refusal(scene)).reason == AbortReason.MALFORMED_MESSAGE
            after = retry(coordinator, attended, scene)
            after.begin()
            await after.ask(after.offer)
            missing = coordinator.keep_blob(b"gone")
            del coordinator.blobs[missing.digest]
            attended.send(
                secure_aggregation=pb.SecureAggregation(round_id=after.offer.round_id, blob=missing)
            )
            assert (await refusal(after)).reason == AbortReason.MALFORMED_MESSAGE

    play(scene)


def test_an_abort_drops_everything_and_is_counted(tmp_path: Path) -> None:
    async def scene() -> None:
        async with secure_federation(tmp_path) as (coordinator, worker):
            gate = worker.trainer.slow["b"] = asyncio.Event()
            attended = await coordinator.attended()
            scene = Scene(coordinator, attended, coordinator.train(["a", "b"]))
            scene.begin()
            await scene.share_keys()
            await worker.until(lambda: bool(worker.driver.session.secure.ready))
            participant = worker.driver._secure._round.participant
            scene.say(AbortNotice(reason="coordinator_restarted", detail="gone"))
            scene.say(AbortNotice(reason="a_reason_of_its_own", detail=""), secrets.token_bytes(16))
            await worker.until(lambda: worker.sample(ENDED, outcome="aborted") == 1)
            await worker.until(lambda: "CLOSED" in repr(participant))
            gate.set()
            await worker.until(lambda: len(worker.driver.session.held) == 2)
            await silent(coordinator)
            labels = {"outcome": "aborted", "reason": "coordinator_restarted"}
            assert worker.sample("ssd_worker_secure_aggregation_aborts_total", **labels) == 1

    play(scene)


@pytest.mark.parametrize(
    ("level", "terms", "says"),
    [
        ("off", SecureTerms(least="passive"), r"\[secure_aggregation\] level"),
        ("passive", SecureTerms(least="active", cannot_sign=""), r"\[secure_aggregation\] level"),
        ("active", SecureTerms(cannot_sign="run `ssd-worker identity init`"), "identity init"),
    ],
)
def test_a_worker_goes_away_for_good_with_what_to_change(
    tmp_path: Path, level: str, terms: SecureTerms, says: str
) -> None:
    async def scene() -> None:
        async with secure_federation(tmp_path, level=level, terms=terms) as (_, worker):
            with pytest.raises(RefusedForGood, match=says):
                await worker.task

    play(scene)


def test_no_secret_gets_into_logs_metrics_events_or_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drawn: list[bytes] = []

    def entropy(count: int) -> bytes:
        drawn.append(secrets.token_bytes(count))
        return drawn[-1]

    settings = SecureSettings(
        policy=ParticipantPolicy(level=Level.PASSIVE),
        identity=SecureIdentity(name=OWN, folder=tmp_path / "identity"),
        entropy=entropy,
    )

    async def scene() -> None:
        async with secure_federation(tmp_path / "s", secure=settings) as (coordinator, worker):
            attended = await coordinator.attended()
            scene = Scene(coordinator, attended, coordinator.train(["a", "b"]))
            scene.begin()
            await scene.share_keys()
            upload = await scene.take_upload()
            masks = [mask.key for mask in worker.driver._secure._round.participant._masks]
            for name in scene.peers:
                scene.peer_body(name)
            await scene.reveal()
            scene.say_bytes(b"\1\x63")
            assert upload.body
            told = [caplog.text.encode(), worker.metrics.render()]
            files = contents(tmp_path / "s")
            told += files.values()
            secret = worker.store.rounding_secret()
            kept = [path.name for path, content in files.items() if secret in content]
            assert kept == ["rounding.secret"]
            planted = [value for value in (*drawn, *masks) if len(value) >= 12]
            assert len(planted) > 4
            for text in told:
                for value in planted:
                    assert value not in text
                    assert value.hex().encode() not in text

    with caplog.at_level(logging.DEBUG):
        play(scene)


def test_shares_and_uploads_have_one_taker(tmp_path: Path) -> None:
    """What the worker sends up is one advert, one bundle, one masked upload and one reveal: nothing else of it."""

    async def scene() -> None:
        async with secure_federation(tmp_path) as (coordinator, worker):
            attended = await coordinator.attended()
            scene = Scene(coordinator, attended, coordinator.train(["a", "b"]))
            heard: list[type] = []
            hear = scene.hear

            async def listening() -> Message:
                message = await hear()
                heard.append(type(message))
                return message

            scene.hear = listening  # type: ignore[method-assign]
            uploads: list[Upload] = []
            judge = coordinator.judge
            coordinator.judge = lambda upload: (uploads.append(upload), judge(upload))[1]
            await whole_round(scene, worker, ["a", "b"])
            assert [kind.__name__ for kind in heard] == ["Advert", ShareBundle.__name__, "Reveal"]
            assert [upload.envelope.kind for upload in uploads] == [pb.Envelope.KIND_MASKED]

    play(scene)


def test_the_guard_over_keys_sees_this_worker_and_notices_a_mask_on_two_vectors(
    tmp_path: Path, key_uses: KeyUses
) -> None:
    async def scene() -> None:
        async with secure_federation(tmp_path) as (coordinator, worker):
            attended = await coordinator.attended()
            await whole_round(Scene(coordinator, attended, coordinator.train(["a", "b"])), worker, ["a", "b"])

    play(scene)
    # Three participants: two sealed bundles each, and two masks each beside its own.
    assert (len(key_uses.sealed), len(key_uses.covered)) == (6, 9)
    declaration = load("synthetic", {"parameters": 16}).declare()
    plan = MaskedPlan.create(
        FoldPlan.create(declaration, Encoding.FLOAT32, 4, 4),
        MaskedSettings(ring_bits=24, clip=1.0, max_client_weight=4, max_cohort=4),
    )
    mask = MaskKey(b"k" * 32, 1)
    one, same, other = MaskedFold(plan), MaskedFold(plan), MaskedFold(plan)
    other._narrow[0] += 1
    one.add_masks([mask])
    same.add_masks([mask])
    with pytest.raises(AssertionError, match="two vectors"):
        other.add_masks([mask])
