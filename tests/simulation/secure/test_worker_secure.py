"""Whole rounds of secure aggregation around one real worker: honest ones, broken ones, and coordinators that lie."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from processes.own_log import own_log
from secure.secure_identities import SecureIdentities
from secure.secure_scene import OWN, Scene, secure_federation, secure_worker
from secure.worker_rounds import ENDED, contents, finish_round, play, refusal, retry, silent, whole_round
from ssd.digest import CHUNK_BYTES
from ssd.secagg.protocol.errors import AbortReason
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import (
    Survivors,
    encode,
)
from ssd.secagg.protocol.policy import ParticipantPolicy
from worker.core.public_reasons import public_refusal
from worker.core.state import SecureTerms
from worker.secure_aggregation.rounds import SecureSettings


def test_two_whole_rounds_open_to_the_sum_of_what_was_quantised(tmp_path: Path) -> None:
    async def scene() -> None:
        async with secure_federation(tmp_path) as (coordinator, worker):
            attended = await coordinator.attended()
            for number in (1, 2):
                scene = Scene(coordinator, attended, coordinator.train(["a", "b"]))
                await whole_round(scene, worker, ["a", "b"])
                await worker.until(lambda number=number: worker.driver.session.clients["a"] == number)
            assert worker.driver.session.secure is None
            assert not worker.driver.session.held
            await worker.until(lambda: not list((tmp_path / "masked").iterdir()))
            assert worker.sample(ENDED, outcome="opened") == 2
            assert worker.sample("ssd_worker_secure_aggregation_step_seconds_count", step="mask") == 2
            assert coordinator.uploads.empty()

    play(scene)


def test_an_active_round_with_a_signed_registry(tmp_path: Path) -> None:
    identities = SecureIdentities(tmp_path / "identities", (OWN, "p1", "p2"))
    settings = SecureSettings(
        policy=ParticipantPolicy(level=Level.ACTIVE, min_participants=3), identity=identities.identity(OWN)
    )
    terms = SecureTerms(least="active", cannot_sign=settings.identity.missing())

    async def scene() -> None:
        async with secure_federation(tmp_path / "s", level="active", secure=settings, terms=terms) as (
            coordinator,
            worker,
        ):
            attended = await coordinator.attended()
            scene = Scene(
                coordinator,
                attended,
                coordinator.train(["a", "b"]),
                level=Level.ACTIVE,
                registry=identities.registry,
                signers=identities.keys,
            )
            await whole_round(scene, worker, ["a", "b"])
            await worker.until(lambda: worker.driver.session.clients["a"] == 1)

    play(scene)


@pytest.mark.parametrize(
    ("clients", "max_weight", "reason", "says"),
    [
        (("a",), 1 << 20, AbortReason.NOT_REGISTERED, "does not list client b for worker w1"),
        ((), 1 << 20, AbortReason.NOT_REGISTERED, "does not list client a for worker w1"),
        (("a", "b"), 15, AbortReason.POLICY_WEIGHT, "may weigh 16 together, version 2 of the registry"),
    ],
)
def test_clients_and_weights_that_its_entry_does_not_allow_are_refused_before_there_are_keys(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    clients: tuple[str, ...],
    max_weight: int,
    reason: AbortReason,
    says: str,
) -> None:
    identities = SecureIdentities(tmp_path / "identities", (OWN, "p1", "p2"))
    identities.publish(2, (OWN, "p1", "p2"), {OWN: clients}, max_weight)
    settings = SecureSettings(
        policy=ParticipantPolicy(level=Level.ACTIVE, min_participants=3), identity=identities.identity(OWN)
    )

    async def scene() -> None:
        async with secure_federation(
            tmp_path / "s", level="active", secure=settings, terms=SecureTerms(least="active", cannot_sign="")
        ) as (coordinator, worker):
            attended = await coordinator.attended()
            scene = Scene(
                coordinator,
                attended,
                coordinator.train(["a", "b"]),
                level=Level.ACTIVE,
                registry=identities.registry,
                signers=identities.keys,
            )
            scene.begin()
            scene.say(scene.offer)
            refused = await refusal(scene)
            assert refused.reason == reason
            assert refused.detail == public_refusal(reason)
            assert says in own_log(caplog)
            assert not worker.store.secure.seen(scene.offer.round_id)

    play(scene)


def test_a_client_that_joins_the_task_after_the_keys_is_not_masked_if_its_entry_does_not_allow_it(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    identities = SecureIdentities(tmp_path / "identities", (OWN, "p1", "p2"))
    identities.publish(2, (OWN, "p1", "p2"), {OWN: ("a",)}, 1 << 20)
    settings = SecureSettings(
        policy=ParticipantPolicy(level=Level.ACTIVE, min_participants=3), identity=identities.identity(OWN)
    )

    async def scene() -> None:
        async with secure_federation(
            tmp_path / "s", level="active", secure=settings, terms=SecureTerms(least="active", cannot_sign="")
        ) as (coordinator, worker):
            gate = worker.trainer.slow["a"] = asyncio.Event()
            attended = await coordinator.attended()
            scene = Scene(
                coordinator,
                attended,
                coordinator.train(["a"]),
                level=Level.ACTIVE,
                registry=identities.registry,
                signers=identities.keys,
            )
            scene.begin()
            await scene.share_keys()
            attended.send(train=coordinator.train(["b"]))
            await worker.until(lambda: len(worker.driver.session.work.clients) == 2)
            gate.set()
            refused = await refusal(scene)
            assert refused.reason == AbortReason.NOT_REGISTERED
            assert refused.detail == public_refusal(AbortReason.NOT_REGISTERED)
            assert "does not list client b for worker w1" in own_log(caplog)
            await silent(coordinator)
            assert not list((tmp_path / "s" / "masked").glob("*"))

    play(scene)


def test_messages_too_long_for_the_stream_come_as_blobs_and_never_touch_the_disk(tmp_path: Path) -> None:
    async def scene() -> None:
        async with secure_federation(tmp_path) as (coordinator, worker):
            attended = await coordinator.attended()
            scene = Scene(coordinator, attended, coordinator.train(["a", "b"]))
            scene.begin()
            await scene.share_keys(blob=True)
            assert scene.aggregator.roster is not None
            roster = encode(scene.aggregator.roster)
            await finish_round(scene, worker, ["a", "b"])
            assert not any(roster in content for content in contents(tmp_path).values())

    play(scene)


def test_keys_are_shared_while_the_clients_train(tmp_path: Path) -> None:
    async def scene() -> None:
        async with secure_federation(tmp_path) as (coordinator, worker):
            gate = worker.trainer.slow["b"] = asyncio.Event()
            attended = await coordinator.attended()
            scene = Scene(coordinator, attended, coordinator.train(["a", "b"]))
            scene.begin()
            await scene.share_keys()
            await worker.until(lambda: bool(worker.driver.session.secure.ready))
            await silent(coordinator)
            gate.set()
            await finish_round(scene, worker, ["a", "b"])

    play(scene)


def test_a_client_that_is_not_finite_is_left_out_of_the_masked_vector(tmp_path: Path) -> None:
    async def scene() -> None:
        async with secure_federation(tmp_path) as (coordinator, worker):
            worker.trainer.broken.add("a")
            attended = await coordinator.attended()
            scene = Scene(coordinator, attended, coordinator.train(["a", "b"]))
            scene.begin()
            await scene.share_keys()
            failed = await attended.receive("task_failed")
            assert (failed.client, failed.reason) == ("a", "not_finite")
            await finish_round(scene, worker, ["b"])

    play(scene)


def test_a_broken_upload_goes_on_with_the_very_same_bytes(tmp_path: Path) -> None:
    async def scene() -> None:
        async with secure_federation(tmp_path) as (coordinator, worker):
            coordinator.break_upload_after = 1
            attended = await coordinator.attended()
            scene = Scene(coordinator, attended, coordinator.train(["a", "b"]))
            await whole_round(scene, worker, ["a", "b"])
            # One envelope, one body: had the bytes differed, the fake coordinator's digests would not fit.
            assert len(coordinator.partial) == 1

    play(scene)


def test_an_upload_that_breaks_at_chunk_boundaries_and_inside_chunks_goes_on_with_the_very_same_bytes(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        async with secure_federation(tmp_path, parameters=750_000) as (coordinator, worker):
            attended = await coordinator.attended()
            scene = Scene(coordinator, attended, coordinator.train(["a", "b"]))
            size = scene.plan.nbytes
            assert 2 * CHUNK_BYTES < size < 3 * CHUNK_BYTES
            coordinator.break_uploads_at = [
                CHUNK_BYTES // 2, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES - 1, 2 * CHUNK_BYTES, size - 1,
            ]  # fmt: skip
            await whole_round(scene, worker, ["a", "b"])
            assert not coordinator.break_uploads_at
            assert len(coordinator.partial) == 1

    play(scene)


@pytest.mark.parametrize("when", ["before the roster", "before the upload", "before the reveal"])
def test_a_worker_that_reconnects_within_the_attempt_goes_on(tmp_path: Path, when: str) -> None:
    async def scene() -> None:
        async with secure_federation(tmp_path) as (coordinator, worker):
            attended = await coordinator.attended()
            scene = Scene(coordinator, attended, coordinator.train(["a", "b"]))

            async def redial() -> None:
                scene.attended.hang_up()
                scene.attended = await coordinator.attended()
                scene.begin()

            scene.begin()
            if when == "before the roster":
                first = await scene.ask(scene.offer)
                await redial()
                # What a coordinator says again gets the same answer again.
                assert await scene.ask(scene.offer) == first
            if when == "before the upload":
                worker.trainer.slow["b"] = asyncio.Event()
            await scene.share_keys()
            if when == "before the upload":
                await worker.until(lambda: bool(worker.driver.session.secure.ready))
                await redial()
                worker.trainer.slow["b"].set()
            upload = await scene.take_upload()
            if when == "before the reveal":
                await redial()
                # It is asked for again, so it sends the same again.
                again = await coordinator.uploaded()
                assert again.body == upload.body
            bodies = [upload.body, *map(scene.peer_body, scene.peers)]
            await scene.reveal()
            _, digest = scene.open(bodies)
            assert digest == scene.expected(worker.store.rounding_secret(), ["a", "b"], ("p1", "p2"))

    play(scene)


def test_a_restarted_worker_is_a_dropout_and_says_so_and_takes_part_in_the_next_attempt(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> None:
        async with secure_federation(tmp_path) as (coordinator, worker):
            attended = await coordinator.attended()
            scene = Scene(coordinator, attended, coordinator.train(["a", "b"]))
            scene.begin()
            await scene.share_keys()
            before = await scene.take_upload()
            await worker.crash()
            # As SIGKILL leaves it.
            (tmp_path / "masked" / "left.body").write_bytes(before.body)
            again = secure_worker(coordinator, tmp_path)
            scene.attended = await coordinator.attended()
            assert not list((tmp_path / "masked").iterdir())
            scene.begin()
            scene.say(scene.offer)
            assert (await refusal(scene)).reason == AbortReason.ROUND_SEEN
            scene.say(Survivors(sharers_digest=scene.aggregator.sharers_digest, names=("p1", OWN)))
            other = Scene(coordinator, scene.attended, scene.train)
            other.say(Survivors(sharers_digest=bytes(32), names=("p1", OWN)))
            assert (await refusal(other)).detail == public_refusal(AbortReason.UNEXPECTED_MESSAGE)
            assert "started again" in own_log(caplog)
            await silent(coordinator)
            after = retry(coordinator, scene.attended, scene)
            after.begin()
            await after.share_keys()
            upload = await after.take_upload()
            assert upload.body != before.body
            bodies = [upload.body, *map(after.peer_body, after.peers)]
            await after.reveal()
            # Rounded as before: only the masks are new.
            secret = again.store.rounding_secret()
            expected = after.expected(secret, ["a", "b"], ("p1", "p2"))
            assert expected == scene.expected(secret, ["a", "b"], ("p1", "p2"))
            assert after.open(bodies)[1] == expected
            await again.crash()

    play(scene)


@pytest.mark.parametrize("restarted", [False, True])
def test_after_its_shares_no_other_set_is_opened_on_that_base(tmp_path: Path, restarted: bool) -> None:
    async def scene() -> None:
        async with secure_federation(tmp_path) as (coordinator, worker):
            attended = await coordinator.attended()
            scene = Scene(coordinator, attended, coordinator.train(["a", "b"]))
            scene.begin()
            await scene.share_keys()
            await scene.take_upload()
            for name in scene.peers:
                scene.peer_body(name)
            await scene.reveal()
            running = worker
            if restarted:
                await worker.crash()
                running = secure_worker(coordinator, tmp_path)
                attended = await coordinator.attended()
            # The same base, without the victim p2.
            train = coordinator.train(["a", "b"], attempt=2)
            lying = Scene(coordinator, attended, train, peers=("p1", "p3"))
            lying.begin()
            lying.say(lying.offer)
            assert (await refusal(lying)).reason == AbortReason.BASE_OPENED
            await silent(coordinator)
            await running.crash()

    play(scene)


def test_a_full_disk_while_the_offer_is_written_down_tells_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with secure_federation(tmp_path) as (coordinator, worker):
            attended = await coordinator.attended()
            scene = Scene(coordinator, attended, coordinator.train(["a", "b"]))
            scene.begin()
            await worker.until(lambda: len(worker.store.load_run(coordinator.run_id).held) == 2)
            worker.store._db.execute("PRAGMA query_only = 1")
            scene.say(scene.offer)
            assert (await refusal(scene)).reason == AbortReason.ABANDONED
            worker.store._db.execute("PRAGMA query_only = 0")
            after = retry(coordinator, attended, scene)
            await whole_round(after, worker, ["a", "b"])

    play(scene)
