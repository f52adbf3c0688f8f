"""Carries out uploads: the body that is due is sent through to its verdict, and the answer is an event."""

from __future__ import annotations

import logging
from dataclasses import replace

from ssd.daemon.logs import event as log_event
from ssd_wire.messages import Welcome
from ssd_wire.uploads import UploadFate, Verdict
from worker.connection.background import NamedTasks
from worker.core import effects, events
from worker.errors import InternalFault, SessionEnded, StorageFailed, TaskFault
from worker.ports import Access, Clock, DataAccess, Performers, Post
from worker.secure_aggregation.rounds import SecureRounds
from worker.telemetry.metrics import Metrics, bounded
from worker.telemetry.tracing import Tracing
from worker.uploads.body import Failures, UploadBody, Uploads
from worker.uploads.layouts import BodyLayouts

_log = logging.getLogger(__name__)
_STORAGE_RETRY_SECONDS = 5.0


class UploadEffects:
    """Runs one upload at a time.

    Args:
        access: the welcome in use, and what a data call needs.
        layouts: layouts of bodies.
        uploads: bodies in the clear, and sending of any.
        secure: masked bodies.
        clock: for waits.
        metrics: where verdicts are counted.
        tracing: says where the calls belong.
        tasks: where the upload and the timer run.
        post: takes the events.
    """

    def __init__(
        self,
        *,
        access: Access,
        layouts: BodyLayouts,
        uploads: Uploads,
        secure: SecureRounds,
        clock: Clock,
        metrics: Metrics,
        tracing: Tracing,
        tasks: NamedTasks,
        post: Post,
    ) -> None:
        self._access = access
        self._layouts = layouts
        self._uploads = uploads
        self._secure = secure
        self._clock = clock
        self._metrics = metrics
        self._tracing = tracing
        self._tasks = tasks
        self._post = post
        self.performers: Performers = {
            effects.StartUpload: self._start,
            effects.StopUpload: self._stop,
            effects.ArmUploadTimer: self._arm_timer,
        }

    async def _start(self, effect: effects.StartUpload) -> None:
        self._tasks.spawn("upload", self.run(effect))

    async def _stop(self, _: effects.StopUpload) -> None:
        self._tasks.cancel("upload")

    async def _arm_timer(self, effect: effects.ArmUploadTimer) -> None:
        self._tasks.spawn("upload_timer", self._remind(effect))

    async def _remind(self, effect: effects.ArmUploadTimer) -> None:
        await self._clock.sleep(effect.seconds)
        self._post(events.UploadDue(round=effect.round, attempt=effect.attempt))

    async def run(self, effect: effects.StartUpload) -> None:
        """Send one upload to its end. It is answered by `UploadEnded` or `UploadBroken`, unless it is cancelled."""
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
        """Return the verdict; None if nothing passed its check, so nothing is uploaded."""
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
        plan = await self._layouts.fold(welcome, access, quality=effect.train.quality)
        return await self._uploads.build(welcome.run_id, plan, effect.train, effect.updates)

    def _on_hold(self, held: bool) -> None:  # the port's callback
        if held:
            self._metrics.holds.inc()
        log_event(_log, logging.DEBUG, "upload_hold" if held else "upload_go")
