"""Carrying out `StartUpload`: the body that is due, sent through to its verdict; the answer is an event."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from ssd.daemon.logs import event as log_event
from ssd_wire.messages import Welcome
from ssd_wire.uploads import UploadFate, Verdict
from worker.core import effects, events
from worker.errors import InternalFault, SessionEnded, StorageFailed, TaskFault
from worker.ports import Clock, DataAccess, Post
from worker.secure_aggregation.rounds import SecureRounds
from worker.telemetry.metrics import Metrics, bounded
from worker.telemetry.tracing import Tracing
from worker.uploads.body import Failures, UploadBody, Uploads
from worker.uploads.layouts import Plans

_log = logging.getLogger(__name__)
_STORAGE_RETRY_SECONDS = 5.0
Access = Callable[[], tuple[Welcome, DataAccess]]


class Uploader:
    """One upload at a time.

    Args:
        access: the welcome in use, and what a data call needs.
        plans: layouts of bodies.
        uploads: bodies in the clear, and sending of any.
        secure: masked bodies.
        clock: for waits.
        metrics: where verdicts are counted.
        tracing: says where the calls belong.
        post: takes the events.
    """

    def __init__(
        self,
        *,
        access: Access,
        plans: Plans,
        uploads: Uploads,
        secure: SecureRounds,
        clock: Clock,
        metrics: Metrics,
        tracing: Tracing,
        post: Post,
    ) -> None:
        self._access = access
        self._plans = plans
        self._uploads = uploads
        self._secure = secure
        self._clock = clock
        self._metrics = metrics
        self._tracing = tracing
        self._post = post

    async def run(self, effect: effects.StartUpload) -> None:
        """Answered by `UploadEnded` or `UploadBroken`, unless cancelled."""
        while True:
            try:
                verdict = await self._upload(effect)
                break
            except StorageFailed as error:
                # Nothing is lost: what is to be uploaded is kept, and the disk may have room again soon.
                log_event(_log, logging.ERROR, "storage_failed", detail=str(error))
                await self._clock.sleep(_STORAGE_RETRY_SECONDS)
            except (SessionEnded, TaskFault) as error:
                log_event(_log, logging.WARNING, "upload_suspended", detail=str(error))
                self._post(events.UploadBroken(upload=effect.upload))
                return
        if verdict is not None:
            self._metrics.uploads.labels(verdict.fate.value, bounded(verdict.reason)).inc()
            self._post(events.UploadEnded(upload=effect.upload, verdict=verdict))

    async def _upload(self, effect: effects.StartUpload) -> Verdict | None:
        """None: nothing passed its check, so nothing is uploaded."""
        welcome, access = self._access()
        body, failures = await self._body(effect, welcome, access)
        if failures:
            self._post(events.UploadLeftOut(upload=effect.upload, failures=failures))
        if body is None:
            return None
        size = body.envelope.body_size
        if welcome.max_upload_bytes and size > welcome.max_upload_bytes:
            return Verdict(
                fate=UploadFate.REJECTED,
                reason="message_too_large",
                detail=f"{size} bytes, the coordinator takes {welcome.max_upload_bytes}",
            )
        access = replace(access, parent=self._tracing.uploading)
        return await self._uploads.send(access, body, self._on_hold)

    async def _body(
        self, effect: effects.StartUpload, welcome: Welcome, access: DataAccess
    ) -> tuple[UploadBody | None, Failures]:
        if effect.secure_round:
            return await self._secure.body(effect, welcome.run_id)
        if welcome.level != "off":
            raise InternalFault("an upload in the clear under secure aggregation")
        plan = await self._plans.fold(welcome, access, quality=effect.train.quality)
        return await self._uploads.build(welcome.run_id, plan, effect.train, effect.updates)

    def _on_hold(self, held: bool) -> None:  # the port's callback
        if held:
            self._metrics.holds.inc()
        log_event(_log, logging.DEBUG, "upload_hold" if held else "upload_go")
