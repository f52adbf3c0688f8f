"""Getting finished updates to the coordinator, once each. Part of the session machine.

One client is uploaded as it is, several as one fold. Clients that were trained together are in one fold from the start:
it is uploaded with all of them, or its clients are trained again. A fold that is refused for what some client in it did
is followed by smaller uploads, so that in the end each client gets its own verdict. A run whose method looks at single
updates takes no folds at all. Under secure aggregation all that is finished goes into one masked upload, once in an attempt;
its verdict is about the masked bytes, so the updates stay whatever it says.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ssd_wire.uploads import UploadFate
from worker.core import effects, events, secagg_client
from worker.core.commits import drop
from worker.core.effects import Effect
from worker.core.finished import Finished
from worker.core.state import Link, Session, Upload, Work
from worker.core.task import fail, untrained

DUPLICATE = "duplicate"


def upload_next(session: Session, out: list[Effect]) -> Session:
    """Begin, or go on with, the upload that is due."""
    current = session.work
    if current is None or not current.live or session.link is not Link.ATTENDING:
        return session
    if current.upload is not None and current.upload.active:
        return session
    ready = [finished for finished in _ready(session, current) if not _grows(session, finished)]
    chosen: list[Finished] = []
    if current.upload is not None:
        # The same envelope as before the break, so that the coordinator goes on where it stopped.
        wanted = set(current.upload.keys)
        chosen = [finished for finished in ready if finished.key in wanted]
    singly = current.singly or session.individual_updates
    masked = session.level != secagg_client.OFF
    if masked:
        due = current.upload is not None or current.eager or not untrained(session)
        chosen = secagg_client.may_upload(session, ready) if ready and due else []
    elif not chosen and ready and (current.eager or session.individual_updates or not untrained(session)):
        chosen = _unit(ready) if singly else ready
    if not chosen:
        return replace(session, work=replace(current, upload=None)) if current.upload else session
    number = session.uploads + 1
    round_id = b""
    if masked:
        session = secagg_client.upload_begun(session, chosen)
        assert session.secure is not None  # its masks are what may be uploaded with
        round_id = session.secure.round_id
    out.append(
        effects.StartUpload(upload=number, train=current.train, updates=tuple(chosen), secure_round=round_id)
    )
    upload = Upload(number=number, keys=tuple(finished.key for finished in chosen))
    return replace(session, uploads=number, work=replace(current, upload=upload))


def _ready(session: Session, work: Work) -> list[Finished]:
    """Finished updates of the task that the coordinator does not have."""
    done = work.delivered | work.settled
    keys = (work.train.key(client) for client in work.clients if client not in done)
    return [session.held[key] for key in keys if key in session.held]


def _grows(session: Session, finished: Finished) -> bool:
    """Whether the update is in a fold to which the training process still adds."""
    return bool(finished.fold) and session.job is not None and session.job.fold == finished.fold


def _unit(ready: list[Finished]) -> list[Finished]:
    """The smallest upload that begins with the first of them."""
    first = ready[0]
    return [each for each in ready if each.fold == first.fold] if first.fold else [first]


def whole_folds(session: Session, out: list[Effect]) -> Session:
    """Let go of updates in folds that cannot be uploaded as they are; their clients are trained again.

    A fold counts with all of its clients or not at all, so it is of no use when one of them is not wanted any more.
    """
    current = session.work
    if current is None or not current.live or session.link is not Link.ATTENDING:
        return session
    held = [finished for finished in _ready(session, current) if finished.fold]
    if not held:
        return session
    counts = Counter(finished.fold for finished in held)
    single = session.individual_updates or session.level != secagg_client.OFF
    split = [
        finished.key
        for finished in held
        if single or (counts[finished.fold] != finished.fold_clients and not _grows(session, finished))
    ]
    return drop(session, tuple(split), "fold_split", out)


def is_unclear(session: Session, event: events.UploadEnded) -> bool:
    """Whether a verdict leaves open who of a fold is in the round's sum.

    All of them may be, when the verdict before got lost; or one is that another worker had, too. There is nothing smaller
    to upload: the coordinator says whom it misses when the worker attends anew.
    """
    _, upload = _upload(session, event.upload)
    if upload is None or event.verdict.reason != DUPLICATE or len(upload.keys) < 2:
        return False
    folds = {session.held[key].fold if key in session.held else "" for key in upload.keys}
    return len(folds) == 1 and folds != {""} and session.level == secagg_client.OFF


def upload_ended(session: Session, event: events.UploadEnded, out: list[Effect]) -> Session:
    """The coordinator judged an upload."""
    current, upload = _upload(session, event.upload)
    if current is None or upload is None:
        return session
    fate, reason = event.verdict.fate, event.verdict.reason
    clients = frozenset(key.client for key in upload.keys)
    folds = {session.held[key].fold if key in session.held else "" for key in upload.keys}
    level = "error" if fate is UploadFate.REJECTED else "info"
    fields = {"fate": fate.value, "reason": reason, "detail": event.verdict.detail, "clients": len(clients)}
    out.append(effects.Note(event="upload_judged", level=level, fields=fields))
    current = replace(current, upload=None)
    if session.level != secagg_client.OFF:
        accepted = fate is UploadFate.ACCEPTED or reason == DUPLICATE
        if accepted:
            current = replace(current, delivered=current.delivered | clients)
        else:
            current = replace(current, settled=current.settled | clients)
        return secagg_client.upload_judged(replace(session, work=current), accepted=accepted, out=out)
    one = len(clients) == 1 or (len(folds) == 1 and folds != {""})
    if fate is UploadFate.ACCEPTED or (reason == DUPLICATE and len(clients) == 1):
        current = replace(current, delivered=current.delivered | clients)
    elif one and len(clients) > 1 and fate is UploadFate.REJECTED:
        session = drop(session, upload.keys, "fold_refused", out)
        current = replace(current, singly=True, apart=True)
    elif not one and (fate is UploadFate.REJECTED or reason == DUPLICATE):
        # Something about some of the clients; one by one each gets its own verdict.
        current = replace(current, singly=True)
    else:
        current = replace(current, settled=current.settled | clients)
        if fate is UploadFate.REJECTED:
            session = drop(session, upload.keys, "rejected", out)
    return replace(session, work=current)


def upload_left_out(session: Session, event: events.UploadLeftOut, out: list[Effect]) -> Session:
    """The worker's own check found bad updates before folding: they are reported, the upload goes on without them."""
    current, upload = _upload(session, event.upload)
    if current is None or upload is None:
        return session
    failures = event.failures
    session = secagg_client.left_out(session, frozenset(key.client for key in failures))
    session = drop(session, tuple(failures), "failed_check", out)
    for key, (reason, detail) in failures.items():
        session = fail(session, key.client, reason, detail, out)
    assert session.work is not None  # failing a client never lets go of the work
    left = tuple(key for key in upload.keys if key not in failures)
    return replace(session, work=replace(session.work, upload=replace(upload, keys=left) if left else None))


def upload_broken(session: Session, event: events.UploadBroken, _: list[Effect]) -> Session:
    """The session the upload belonged to is over; it resumes in the next one."""
    current, upload = _upload(session, event.upload)
    if current is None or upload is None:
        return session
    return replace(session, work=replace(current, live=False, upload=replace(upload, active=False)))


def _upload(session: Session, number: int) -> tuple[Work | None, Upload | None]:
    """The work and its active upload, if `number` still names it."""
    current = session.work
    if current is None or current.upload is None:
        return None, None
    if current.upload.number != number or not current.upload.active:
        return None, None
    return current, current.upload
