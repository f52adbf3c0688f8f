"""Carrying out the effects of secure aggregation: messages are read, the participant runs on a thread of its own.

Rules it keeps:

- The participant's steps come one after the other, in the order of the messages (`MessageReader` keeps it).
- What a participant must not forget is written (`worker.store.secure_memory`) within its step, before the answer to it is
  known here, let alone sent.
- A message may come again, because an answer was lost with a link: the participant answers it the same again.
- Keys live in the participant, in memory. Closing a round drops them as soon as the step under way is over, and with
  them the masked upload. Nothing secret is logged or put into an event.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssd.daemon.logs import event as log_event
from ssd.secagg.client.participant import Participant
from ssd.secagg.numbers.config_digest import config_digest
from ssd.secagg.numbers.masked_plan import MaskedPlan
from ssd.secagg.protocol.errors import AbortReason, Refused
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.keys import rounding_key
from ssd.secagg.protocol.messages import (
    Advert,
    Message,
    Offer,
    Reveal,
    Roster,
    SetProof,
    SetSignature,
    ShareBundle,
    ShareDelivery,
    Survivors,
    encode,
)
from ssd.secagg.protocol.policy import ParticipantPolicy, RunTerms
from ssd.trust.participants import Registry
from ssd.trust.signing import SigningRefused
from ssd_wire.messages import Train
from ssd_wire.uploads import UploadKind, split_digests
from worker.connection.background import NamedTasks
from worker.core import effects, events
from worker.core.finished import Finished
from worker.errors import InternalFault, SessionEnded, StorageFailed, TaskFault
from worker.ports import Access, Clock, Performers, Post, Store, Transport
from worker.secure_aggregation.identity import SecureIdentity
from worker.secure_aggregation.masked_upload import Failures, MaskedBody, make_body
from worker.secure_aggregation.message_reader import MessageReader
from worker.secure_aggregation.registry_entry import check_own_entry
from worker.secure_aggregation.task_checks import Admission
from worker.store.files import map_file
from worker.telemetry.metrics import Metrics
from worker.uploads.body import UploadBody, envelope_of
from worker.uploads.layouts import BodyLayouts

_log = logging.getLogger(__name__)
_JOIN = "offer"
_STEPS: Mapping[type, str] = {
    Roster: "roster",
    ShareDelivery: "delivery",
    Survivors: "survivors",
    SetProof: "proof",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureSettings:
    """What this worker is under secure aggregation."""

    policy: ParticipantPolicy
    identity: SecureIdentity
    needs_policy: bool = False
    """Take part only under a signed federation policy."""
    max_weight_ratio: int = 1 << 20
    """The most a client's part may weigh, measured by the least that one can weigh."""
    mask_threads: int = 1
    entropy: Callable[[int], bytes] = os.urandom

    @property
    def admission(self) -> Admission:
        """What is checked of runs and tasks."""
        return Admission(
            identity=self.identity, needs_policy=self.needs_policy, max_weight_ratio=self.max_weight_ratio
        )


@dataclass(slots=True)
class _Round:
    """One round id and everything that goes with it."""

    round_id: bytes
    train: Train
    plan: MaskedPlan
    target: Path
    """Where its masked upload goes."""
    level: Level
    """Of the run."""
    registry: Registry | None = None
    """As pinned when the offer was taken; None in `passive`."""
    participant: Participant | None = None
    body: MaskedBody | None = None


class SecureRounds:
    """At most one round id at a time.

    Args:
        settings: of this worker.
        access: the welcome in use, and what a data call needs.
        layouts: layouts of masked vectors.
        store: rounds that were seen, updates, room for the masked upload.
        transport: fetches messages in blobs.
        clock: for waits and durations.
        metrics: where steps and ends are counted.
        tasks: where the two loops run.
        post: takes the events.
    """

    def __init__(
        self,
        *,
        settings: SecureSettings,
        access: Access,
        layouts: BodyLayouts,
        store: Store,
        transport: Transport,
        clock: Clock,
        metrics: Metrics,
        tasks: NamedTasks,
        post: Post,
    ) -> None:
        self._settings = settings
        self._access = access
        self._layouts = layouts
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._tasks = tasks
        self._post = post
        self._reader = MessageReader(access=access, transport=transport, clock=clock, tasks=tasks, post=post)
        self._round: _Round | None = None
        self._wanted = b""
        """The round id that is open, or being opened."""
        self._steps: asyncio.Queue[Coroutine[Any, Any, None]] = asyncio.Queue()
        self._stepping = False
        # One thread: steps, masks and closing come one after the other.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="participant")
        self.performers: Performers = {
            effects.FetchSecure: self._reader.fetch,
            effects.JoinSecure: self._join,
            effects.TellSecure: self._tell,
            effects.AcknowledgeSecure: self._acknowledge,
            effects.CloseSecure: self._close,
        }

    async def close(self) -> None:
        """Drop everything, when the worker ends."""
        self._drop()
        while not self._steps.empty():
            self._steps.get_nowait().close()
        await asyncio.to_thread(self._thread.shutdown)

    def count(self, note: effects.Note) -> None:
        """Count how rounds end."""
        if note.event not in _ENDS:
            return
        outcome = _ENDS[note.event]
        self._metrics.secure_rounds.labels(outcome).inc()
        if "reason" in note.fields:
            self._metrics.secure_aborts.labels(outcome, _reason(str(note.fields["reason"]))).inc()

    # --------------------------------------------------------------------------------------------------- steps

    async def _join(self, effect: effects.JoinSecure) -> None:
        self._drop()
        self._wanted = effect.round_id
        self._enqueue(self._begin(effect))

    async def _tell(self, effect: effects.TellSecure) -> None:
        self._enqueue(self._go_on(effect))

    async def _acknowledge(self, effect: effects.AcknowledgeSecure) -> None:
        self._enqueue(self._acknowledged(effect.round_id))

    async def _close(self, effect: effects.CloseSecure) -> None:
        if effect.round_id == self._wanted:
            self._drop()

    def _enqueue(self, step: Coroutine[Any, Any, None]) -> None:
        self._steps.put_nowait(step)
        if not self._stepping:
            self._stepping = True
            self._tasks.spawn("secure-steps", self._take_steps())

    async def _take_steps(self) -> None:
        while True:
            await (await self._steps.get())

    async def _begin(self, effect: effects.JoinSecure) -> None:
        try:
            welcome, access = self._access()
            plan = await self._layouts.masked(welcome, access, quality=effect.train.quality)
        except SessionEnded:
            if self._wanted == effect.round_id:
                self._post(events.SecureNotBegun(round_id=effect.round_id))
            return
        except TaskFault as fault:
            self._refuse(effect.round_id, AbortReason.CONFIG_DIFFERS, str(fault))
            return
        try:
            # Again: what is uploaded may have been trained before this process, or these terms, were there.
            self._settings.admission.check(plan.fold.declaration, welcome, effect.train)
        except Refused as refused:
            self._refuse(effect.round_id, refused.reason, refused.detail)
            return
        if self._wanted != effect.round_id:
            return
        target = self._store.masked_path(f"{effect.round_id.hex()}.body")
        current = self._round = _Round(effect.round_id, effect.train, plan, target, Level(welcome.level))
        await self._step(current, _JOIN, lambda: self._make(current, effect.offer))

    def _make(self, current: _Round, offer: Offer) -> Advert:
        """On the thread: the participant, and what it says to the offer."""
        registry = signer = None
        if offer.level is Level.ACTIVE:
            try:
                registry, signer = self._settings.identity.load()
            except SigningRefused as error:
                raise Refused(AbortReason.NO_IDENTITY, str(error)) from error
            current.registry = registry
            self._check_clients(current, [each.client for each in current.train.clients])
        current.participant = Participant(
            name=self._settings.identity.name,
            policy=_with_noise(self._settings.policy, current.plan),
            registry=registry,
            signer=signer,
            entropy=self._settings.entropy,
            memory=self._store.secure,
            run_terms=_run_terms(current),
        )
        return _take_offer(current, offer)

    def _check_clients(self, current: _Round, clients: Collection[str]) -> None:
        if current.registry is not None:
            cap = current.plan.settings.max_client_weight
            check_own_entry(current.registry, self._settings.identity.name, clients, cap)

    async def _go_on(self, effect: effects.TellSecure) -> None:
        current = self._round
        if current is None or current.round_id != effect.round_id:
            return
        what = _STEPS.get(type(effect.message), _JOIN)
        await self._step(current, what, lambda: _take(current, effect.message))

    async def _step(self, current: _Round, what: str, take: Callable[[], Message | None]) -> None:
        started = self._clock.monotonic()
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._thread, take)
        except Refused as refused:
            await self._withdraw(current)
            self._refuse(current.round_id, refused.reason, refused.detail)
            return
        except StorageFailed as error:
            # Nothing may be told that is not written down.
            self._refuse(current.round_id, AbortReason.ABANDONED, str(error))
            return
        if self._round is not current:
            return
        self._metrics.secure_step_seconds.labels(what).observe(self._clock.monotonic() - started)
        said = b"" if answer is None else encode(answer)
        log_event(_log, logging.INFO, "secure_step", round_id=current.round_id.hex()[:8], step=what)
        self._post(
            events.SecureAnswered(round_id=current.round_id, answer=said, ready=what == _STEPS[ShareDelivery])
        )

    async def _withdraw(self, current: _Round) -> None:
        """Keep that what was uploaded counts for nothing. A disk that fails keeps more than is true, no less."""
        with suppress(StorageFailed):
            await asyncio.get_running_loop().run_in_executor(
                self._thread, self._store.secure.remember_refused, current.round_id
            )

    async def _acknowledged(self, round_id: bytes) -> None:
        current = self._round
        if current is None or current.round_id != round_id or current.participant is None:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, current.participant.uploaded)
        except Refused as refused:
            self._refuse(round_id, refused.reason, refused.detail)

    def _refuse(self, round_id: bytes, reason: AbortReason, detail: str) -> None:
        if self._wanted == round_id:
            self._post(events.SecureRefused(round_id=round_id, reason=reason, detail=detail))

    def _drop(self) -> None:
        current, self._round, self._wanted = self._round, None, b""
        if current is not None:
            # After the step under way, if there is one: it must not find half of a participant.
            self._thread.submit(_forget, current)

    # ------------------------------------------------------------------------------------------------- uploads

    async def body(self, effect: effects.StartUpload, run_id: str) -> tuple[UploadBody | None, Failures]:
        """The masked upload of these updates, and those that failed their check and are left out of it.

        Raises:
            StorageFailed: it cannot be written; ask again.
            TaskFault: the round is over.
        """
        current = self._round
        if current is None or current.round_id != effect.secure_round or current.participant is None:
            raise TaskFault("round_over", "the keys of the masked upload are gone")
        failures: Failures = {}
        if current.body is None:
            started = self._clock.monotonic()
            loop = asyncio.get_running_loop()
            try:
                failures = await loop.run_in_executor(
                    self._thread, self._mask, current, run_id, effect.updates
                )
            except Refused as refused:
                self._refuse(current.round_id, refused.reason, refused.detail)
                raise TaskFault("round_over", refused.detail) from refused
            if current.body is None:
                return None, failures
            self._metrics.secure_step_seconds.labels("mask").observe(self._clock.monotonic() - started)
        elif not {each.key for each in current.body.updates} <= {each.key for each in effect.updates}:
            raise TaskFault("round_over", "other updates than those that were masked")
        return _upload_body(current, run_id), failures

    def _mask(self, current: _Round, run_id: str, updates: tuple[Finished, ...]) -> Failures:
        """On the thread: make the body, if anything can be in it.

        Raises:
            Refused: the registry does not allow what it would be made of. The task may have grown since the offer.
        """
        participant = current.participant
        assert participant is not None  # `body` looked
        self._check_clients(current, [each.key.client for each in updates])
        secret, base = self._store.rounding_secret(), bytes.fromhex(current.train.base.model_digest)

        def key(client: str) -> bytes:
            return rounding_key(
                secret, run_id=run_id, round=current.train.round, base_digest=base, client=client
            )

        current.body, failures = make_body(
            current.plan,
            updates,
            self._store.body_path,
            key,
            participant.masks,
            current.target,
            self._settings.mask_threads,
            self._settings.entropy,
        )
        if current.body is not None:
            clients = [each.key.client for each in current.body.updates]
            self._store.secure.remember_clients(current.round_id, run_id, clients)
        return failures


_ENDS = {
    "secure_round_opened": "opened",
    "secure_round_aborted": "aborted",
    "secure_round_refused": "refused",
}


def _take(current: _Round, message: Message) -> Message | None:
    """On the thread: give the participant a message."""
    participant = current.participant
    assert participant is not None  # its first step made it, or refused
    match message:
        case Offer():
            return _take_offer(current, message)
        case Roster():
            bundle: ShareBundle = participant.roster(message)
            return bundle
        case ShareDelivery():
            participant.delivery(message)
            return None
        case Survivors():
            answer: SetSignature | Reveal = participant.survivors(message)
            return answer
        case SetProof():
            reveal: Reveal = participant.proof(message)
            return reveal
        case _:
            raise InternalFault(f"{type(message).__name__} is not for a participant")


def _take_offer(current: _Round, offer: Offer) -> Advert:
    """On the thread: what the participant says to an offer for the model and the settings of this host."""
    participant, plan, train = current.participant, current.plan, current.train
    assert participant is not None  # made before
    return participant.offer(
        offer,
        model_digest=bytes.fromhex(train.base.model_digest),
        config_digest=config_digest(plan.digest, train.task_digest),
    )


def _run_terms(current: _Round) -> RunTerms:
    """What the welcome says of every offer."""
    plan = current.plan
    return RunTerms(
        level=current.level,
        ring_bits=plan.settings.ring_bits,
        max_total_weight=plan.max_total_weight,
        max_participants=plan.settings.max_cohort,
    )


def _with_noise(policy: ParticipantPolicy, plan: MaskedPlan) -> ParticipantPolicy:
    """Also insist on as many honest survivors as the plan's noise was made for."""
    return policy if plan.noise is None else replace(policy, min_honest=plan.noise.fewest_honest)


def _forget(current: _Round) -> None:
    """On the thread: no key and no masked byte is left."""
    if current.participant is not None:
        current.participant.close()
    with suppress(OSError):
        current.target.unlink(missing_ok=True)


def _upload_body(current: _Round, run_id: str) -> UploadBody:
    body, train, participant = current.body, current.train, current.participant
    assert body is not None  # the caller made both
    assert participant is not None
    chunks = split_digests(body.chunk_digests)
    said = envelope_of(run_id, current.plan.fold, train, body.updates, body.size, chunks, UploadKind.MASKED)
    masked = replace(said, secure_round=current.round_id, sharers_digest=participant.sharers_digest)
    return UploadBody(masked, map_file(body.path))


def _reason(text: str) -> str:
    """A label out of a closed set, whatever the coordinator says."""
    return text if text in set(AbortReason) else "other"
