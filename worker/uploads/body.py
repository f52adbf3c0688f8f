"""The bodies of uploads, and carrying one through to its verdict.

One client's update is uploaded as the file the training process wrote, and so is a fold that the training process made.
Several of either are folded into one exact sum first; each is checked before it is added, one that fails is left out.
The body of the last fold is kept until its verdict, so that an upload that broke goes on with the very same bytes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from ssd.daemon.logs import event as log_event
from ssd.digest import chunk_digests
from ssd.updates.fold import Fold, FoldPlan, UpdateRefused, check_fold
from ssd_wire.messages import Train, UpdateKey
from ssd_wire.uploads import Envelope, UploadFate, UploadKind, Verdict, WeightedClient, split_digests
from worker.core.backoff import Backoff
from worker.core.finished import Finished
from worker.errors import CoordinatorFault, LinkBroken, SessionEnded, StorageFailed
from worker.ports import Buffer, Clock, DataAccess, Store, Transport
from worker.store.files import map_file

_log = logging.getLogger(__name__)
_MAX_CORRUPT = 3
"""Times an upload may arrive damaged before it is taken for bad."""

Failures = Mapping[UpdateKey, tuple[str, str]]


class UploadBody:
    """An envelope and the bytes it speaks of. `worker.ports.UploadSource`."""

    def __init__(self, envelope: Envelope, body: Buffer) -> None:
        self.envelope = envelope
        self._body = memoryview(body)

    def chunk(self, offset: int, size: int) -> Buffer:
        """A view of the body."""
        return self._body[offset : offset + size]


class Uploads:
    """Builds and sends. One upload at a time."""

    def __init__(self, store: Store, transport: Transport, clock: Clock) -> None:
        self._store = store
        self._transport = transport
        self._clock = clock
        self._backoff = Backoff(first=0.2, cap=5.0)
        self._last: tuple[tuple[UpdateKey, ...], bytes, tuple[Finished, ...], Failures] | None = None

    async def build(
        self, run_id: str, plan: FoldPlan, task: Train, updates: tuple[Finished, ...]
    ) -> tuple[UploadBody | None, Failures]:
        """The upload of these updates, and those that failed the check and are left out of it.

        A body that cannot be read counts as failed: the client is trained again.
        """
        first = updates[0]
        if len({each.fold or each.key for each in updates}) == 1:
            self._last = None
            try:
                body = await asyncio.to_thread(map_file, self._path(first))
            except StorageFailed as error:
                return None, {each.key: ("storage", str(error)) for each in updates}
            kind = UploadKind.FOLD if first.fold else UploadKind.UPDATE
            digests = split_digests(first.chunk_digests)
            return UploadBody(envelope_of(run_id, plan, task, updates, len(body), digests, kind), body), {}
        keys = tuple(finished.key for finished in updates)
        if self._last is None or self._last[0] != keys:
            packed, folded, failures = await asyncio.to_thread(self._fold, plan, updates)
            self._last = (keys, packed, folded, failures)
        _, packed, folded, failures = self._last
        if not folded:
            return None, failures
        chunks = tuple(await asyncio.to_thread(chunk_digests, packed))
        return UploadBody(
            envelope_of(run_id, plan, task, folded, len(packed), chunks, UploadKind.FOLD), packed
        ), failures

    def _fold(
        self, plan: FoldPlan, updates: tuple[Finished, ...]
    ) -> tuple[bytes, tuple[Finished, ...], Failures]:
        fold = Fold(plan)
        folded: list[Finished] = []
        failures: dict[UpdateKey, tuple[str, str]] = {}
        parts: dict[str | UpdateKey, list[Finished]] = {}
        for finished in updates:
            parts.setdefault(finished.fold or finished.key, []).append(finished)
        for part in parts.values():
            try:
                self._add(fold, plan, part)
            except UpdateRefused as refused:
                failures |= {each.key: (refused.reason.value, refused.detail) for each in part}
            except StorageFailed as error:
                failures |= {each.key: ("storage", str(error)) for each in part}
            else:
                folded += part
        return fold.pack() if folded else b"", tuple(folded), failures

    def _add(self, fold: Fold, plan: FoldPlan, part: list[Finished]) -> None:
        """Add one client's update, or a fold that the training process made, as a whole.

        Raises:
            UpdateRefused: it is bad; the sum is unchanged.
            StorageFailed: it cannot be read.
        """
        body, weight = map_file(self._path(part[0])), sum(each.weight for each in part)
        if part[0].fold:
            check_fold(plan, body, weight, len(part))
            fold.add_fold(body, weight, len(part))
        else:
            fold.verify_and_add(body, weight)

    def _path(self, finished: Finished) -> Path:
        if finished.fold:
            return self._store.fold_path(finished.fold)
        return self._store.body_path(finished.key)

    async def send(self, access: DataAccess, body: UploadBody, on_hold: Callable[[bool], None]) -> Verdict:
        """Carry an upload through to its verdict, over as many calls as it takes.

        Raises:
            SessionEnded: only a new session helps.
        """
        failures = corrupt = 0
        while True:
            try:
                return await self._transport.submit(access, body, on_hold)
            except SessionEnded:
                raise
            except CoordinatorFault as fault:
                broken = LinkBroken("malformed_message", str(fault))
            except LinkBroken as error:
                broken = error
            failures += 1
            corrupt += broken.reason in {"corrupt_chunk", "bad_offset", "malformed_message"}
            log_event(_log, logging.WARNING, "upload_broken", reason=broken.reason, detail=broken.detail)
            if corrupt >= _MAX_CORRUPT:
                return Verdict(fate=UploadFate.REJECTED, reason=broken.reason, detail=broken.detail)
            await self._clock.sleep(self._backoff.seconds(failures, self._clock.uniform()))


def envelope_of(
    run_id: str,
    plan: FoldPlan,
    task: Train,
    updates: tuple[Finished, ...],
    size: int,
    chunks: tuple[bytes, ...],
    kind: UploadKind = UploadKind.UPDATE,
) -> Envelope:
    """What an upload of these updates says of itself; a masked one still lacks whose masks it wears.

    Args:
        run_id: of the run.
        plan: how its bodies are laid out.
        task: the task that was trained for.
        updates: those inside.
        size: bytes of the body.
        chunks: SHA-256 of every 1 MiB chunk of it.
        kind: what the body is. Weights of a masked one are inside it, so that the envelope says 0.
    """
    weighted = kind is not UploadKind.MASKED
    return Envelope(
        run_id=run_id,
        round=task.round,
        attempt=task.attempt,
        base_digest=task.base.model_digest,
        spec_digest=plan.declaration.spec.digest,
        task_digest=task.task_digest,
        kind=kind,
        clients=tuple(
            WeightedClient(
                client=each.key.client,
                weight=each.weight if weighted else 0,
                training_seconds=each.seconds,
            )
            for each in updates
        ),
        body_size=size,
        chunk_digests=chunks,
    )
