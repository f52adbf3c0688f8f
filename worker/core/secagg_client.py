"""The part a worker has in secure aggregation: which message goes to the participant when. Part of the session machine.

    Train, Offer --JoinSecure--> advert --> roster --> shares --> delivery --> ready: the masked upload may begin
          ... --> verdict --> survivors [--> proof] --> reveal --> opened or aborted: the keys are dropped

Rules it keeps:

- Under another level than `off` an update leaves this host in a masked upload or not at all.
- One masked upload in a round id. After a break it goes on with the same clients and the same bytes.
- A survivor set waits until the masked upload has its verdict: the two come over different connections.
- The keys live as long as the attempt they were made for: a new attempt, base, offer or run drops them. A lost link
  does not; what a coordinator says again gets the same answer again.
- Who has refused, or has no keys because its process is a new one, says so once and is a dropout of that round id.

Everything cryptographic, and what may be answered to what, is `ssd.secagg.client.participant`'s.
"""

from __future__ import annotations

from dataclasses import replace

from ssd.secagg.protocol.errors import AbortReason, MalformedMessage
from ssd.secagg.protocol.messages import (
    AbortNotice,
    Offer,
    Opened,
    Refusal,
    Roster,
    SetProof,
    ShareDelivery,
    Survivors,
    decode,
    encode,
)
from ssd_wire import messages
from ssd_wire.messages import UpdateKey
from worker.core import effects, events
from worker.core.effects import Effect
from worker.core.finished import Finished
from worker.core.public_reasons import public_refusal
from worker.core.state import Link, SecureRound, Session

OFF, ACTIVE = "off", "active"
LEVELS = (OFF, "passive", ACTIVE)
"""From the weakest to the strongest."""
PLACES = (OFF, "central", "distributed")
"""Of noise, from the weakest to the strongest."""
MAX_DETAIL = 200
"""Characters of a coordinator's own words that are logged."""


def masking_objection(session: Session, welcome: messages.Welcome) -> str:
    """The same about the numbers of masked sums."""
    if welcome.run_id != session.run_id or session.masking in (None, welcome.masking):
        return ""
    return (
        "the coordinator changed the numbers of secure aggregation (ring_bits, clip, max_client_weight) within a run."
        " They never change: ask its operator; start this worker again if the run is to be trusted all the same"
    )


def privacy_objection(session: Session, welcome: messages.Welcome) -> str:
    """The same about differential privacy."""
    offered, terms = welcome.privacy, session.terms
    place = OFF if offered is None else offered.place.value
    if PLACES.index(place) < PLACES.index(terms.privacy):
        return (
            f"the coordinator offers differential privacy {place!r}, this worker accepts nothing below"
            f' {terms.privacy!r}: have the run made with [privacy] mechanism = "{terms.privacy}", or lower [privacy]'
            " mechanism in this worker's configuration"
        )
    if terms.min_noise_multiplier > (0.0 if offered is None else offered.noise_multiplier):
        return (
            f"the run's noise is {0.0 if offered is None else offered.noise_multiplier:g} times a client's influence,"
            f" this worker asks for {terms.min_noise_multiplier:g}: raise [privacy] noise_multiplier of the run, or lower"
            " min_noise_multiplier of this worker"
        )
    if welcome.run_id == session.run_id and session.privacy not in (None, offered):
        return (
            "the coordinator changed the terms of differential privacy within a run. They never change: ask its"
            " operator; start this worker again if the run is to be trusted all the same"
        )
    return ""


def objection(session: Session, welcome: messages.Welcome, seen: str) -> str:
    """Why this worker does not work for the run of that welcome, and what to change; empty: it does.

    Args:
        session: as it is.
        welcome: not taken yet.
        seen: level the welcome's run was seen with before.
    """
    offered, least = welcome.level, session.terms.least
    if LEVELS.index(offered) < LEVELS.index(least):
        return (
            f"the coordinator runs secure aggregation at level {offered!r}, this worker accepts nothing below"
            f' {least!r}: have the run made with [secure_aggregation] level = "{least}", or lower'
            " [secure_aggregation] level in this worker's configuration"
        )
    if LEVELS.index(offered) < LEVELS.index(seen):
        return (
            f"the coordinator lowered the level of secure aggregation within a run, from {seen!r} to {offered!r}. A run's"
            " level never changes: ask its operator; what it does without is a new run"
        )
    # Who hosts nobody, as an evaluator does, has nothing to sign for.
    if offered == ACTIVE and session.clients and session.terms.cannot_sign:
        return f"the coordinator runs secure aggregation at level 'active', and {session.terms.cannot_sign}"
    return masking_objection(session, welcome) or privacy_objection(session, welcome)


def may_upload(session: Session, ready: list[Finished]) -> list[Finished]:
    """What of the finished updates goes into the masked upload, if it may begin or go on now."""
    secure = session.secure
    if secure is None or not secure.ready or secure.over or not _is_of_work(secure, session):
        return []
    if secure.sent is None:
        return ready
    again = [finished for finished in ready if finished.key in secure.sent]
    # The masks must never lie on other bytes than before.
    return again if len(again) == len(secure.sent) else []


def tidy(session: Session, out: list[Effect]) -> Session:
    """Drop keys whose attempt is not the one this worker works at any more."""
    secure = session.secure
    if secure is None or (not session.stopped and _is_of_work(secure, session)):
        return session
    let_go = session.let_go if secure.over else secure.round_id
    return replace(_close(session, out), secure=None, let_go=let_go)


def offline(session: Session) -> Session:
    """The link is lost: what waits will be said again."""
    secure = session.secure
    return session if secure is None else replace(session, secure=replace(secure, waiting=None))


def _is_of_work(secure: SecureRound, session: Session) -> bool:
    current = session.work
    return current is not None and (secure.round, secure.attempt, secure.task_digest) == (
        current.train.round,
        current.train.attempt,
        current.train.task_digest,
    )


# --------------------------------------------------------------------------------------------- from the coordinator


def received(session: Session, event: messages.SecureMessage, out: list[Effect]) -> Session:
    """A message arrived, or word of a blob that holds one."""
    if session.level == OFF:
        return _ignore(session, event.round_id, "the run has no secure aggregation", out)
    if event.blob is not None:
        out.append(effects.FetchSecure(round_id=event.round_id, blob=event.blob))
        return session
    try:
        message = decode(event.content)
    except MalformedMessage as error:
        return _refuse(session, event.round_id, AbortReason.MALFORMED_MESSAGE, error.detail, out)
    return heard(session, events.SecureHeard(round_id=event.round_id, message=message), out)


def heard(session: Session, event: events.SecureHeard, out: list[Effect]) -> Session:
    """A message was read."""
    match event.message:
        case Offer():
            return _offered(session, event, event.message, out)
        case Roster() | ShareDelivery() | Survivors() | SetProof():
            return _told(session, event, out)
        case Opened() | AbortNotice():
            return _ended(session, event, out)
        case _:
            what = f"{type(event.message).__name__} is nothing a coordinator says"
            return _refuse(session, event.round_id, AbortReason.MALFORMED_MESSAGE, what, out)


def unreadable(session: Session, event: events.SecureUnreadable, out: list[Effect]) -> Session:
    """Something arrived that is no message."""
    return _refuse(session, event.round_id, AbortReason.MALFORMED_MESSAGE, event.detail, out)


def _offered(session: Session, event: events.SecureHeard, offer: Offer, out: list[Effect]) -> Session:
    secure, current = session.secure, session.work
    if offer.round_id != event.round_id:
        detail = "an offer in the name of another round id"
        return _refuse(session, event.round_id, AbortReason.MALFORMED_MESSAGE, detail, out)
    if secure is not None and secure.round_id == event.round_id:
        return _told(session, event, out)
    if session.link is not Link.ATTENDING or current is None or not current.live:
        return _ignore(session, event.round_id, "there is no task", out)
    if (offer.round, offer.attempt) != (current.train.round, current.train.attempt):
        return _ignore(session, event.round_id, "the offer is for another attempt", out)
    if secure is not None:
        session = _close(session, out)
    joined = SecureRound(
        round_id=event.round_id,
        round=offer.round,
        attempt=offer.attempt,
        task_digest=current.train.task_digest,
    )
    if current.upload is not None:
        # It was masked with keys that are gone now.
        if current.upload.active:
            out.append(effects.StopUpload())
        current = replace(current, upload=None)
    current = replace(current, delivered=frozenset(), settled=frozenset())
    out.append(effects.JoinSecure(round_id=event.round_id, offer=offer, train=current.train))
    return replace(session, secure=joined, work=current)


def _told(session: Session, event: events.SecureHeard, out: list[Effect]) -> Session:
    secure = session.secure
    if secure is None or secure.round_id != event.round_id:
        return _without_keys(session, event.round_id, out)
    if secure.over:
        return _ignore(session, event.round_id, "this worker takes no part in it any more", out)
    if isinstance(event.message, Survivors) and _is_uploading(session):
        return replace(session, secure=replace(secure, waiting=event))
    out.append(effects.TellSecure(round_id=event.round_id, message=event.message))
    return session


def _is_uploading(session: Session) -> bool:
    current = session.work
    return current is not None and current.upload is not None and current.upload.active


def _without_keys(session: Session, round_id: bytes, out: list[Effect]) -> Session:
    detail = "this worker has no keys of that round id: its process was started again, or it works at another attempt"
    _note(round_id, "secure_keys_missing", "warning", {"detail": detail}, out)
    _refusal(session, AbortReason.UNEXPECTED_MESSAGE, round_id, out)
    return session


def _ended(session: Session, event: events.SecureHeard, out: list[Effect]) -> Session:
    secure, message = session.secure, event.message
    if isinstance(message, Opened) and event.round_id == session.let_go:
        _note(event.round_id, "secure_round_opened", "info", {"survivors": message.survivors}, out)
        return replace(session, let_go=b"")
    if secure is None or secure.round_id != event.round_id or secure.over:
        return _ignore(session, event.round_id, "it is over already", out)
    if isinstance(message, AbortNotice):
        fields: dict[str, object] = {"reason": message.reason, "detail": message.detail[:MAX_DETAIL]}
        _note(event.round_id, "secure_round_aborted", "warning", fields, out)
        session = _withdraw(session)
    else:
        assert isinstance(message, Opened)  # the only other message that gets here
        _note(event.round_id, "secure_round_opened", "info", {"survivors": message.survivors}, out)
    return _close(session, out)


# --------------------------------------------------------------------------------------------- from the participant


def answered(session: Session, event: events.SecureAnswered, out: list[Effect]) -> Session:
    """The participant took a message."""
    secure = session.secure
    if secure is None or secure.round_id != event.round_id or secure.over:
        return session
    if event.answer and session.link is Link.ATTENDING:
        out.append(
            effects.Send(message=messages.SecureMessage(round_id=event.round_id, content=event.answer))
        )
    return replace(session, secure=replace(secure, ready=secure.ready or event.ready))


def refused(session: Session, event: events.SecureRefused, out: list[Effect]) -> Session:
    """The participant will not go on."""
    return _refuse(session, event.round_id, event.reason, event.detail, out)


def not_begun(session: Session, event: events.SecureNotBegun, _: list[Effect]) -> Session:
    """The offer has to come again."""
    secure = session.secure
    if secure is None or secure.round_id != event.round_id:
        return session
    return replace(session, secure=None)


def upload_begun(session: Session, chosen: list[Finished]) -> Session:
    """The masked upload is made of these from now on."""
    assert session.secure is not None  # may_upload said so
    keys = tuple(finished.key for finished in chosen)
    return replace(
        session,
        secure=replace(session.secure, sent=keys),
        summed=session.summed | {summed_of(key) for key in keys},
    )


def upload_judged(session: Session, *, accepted: bool, out: list[Effect]) -> Session:
    """The masked upload has its verdict; now the survivor set may be looked at."""
    secure = session.secure
    if secure is None or secure.over:
        return session
    if accepted:
        out.append(effects.AcknowledgeSecure(round_id=secure.round_id))
    waiting = secure.waiting
    if waiting is not None:
        out.append(effects.TellSecure(round_id=waiting.round_id, message=waiting.message))
    return replace(session, secure=replace(secure, waiting=None))


def left_out(session: Session, failed: frozenset[str]) -> Session:
    """These clients' updates turned out bad before anything was masked: the upload is made of the rest."""
    secure = session.secure
    if secure is None or secure.sent is None:
        return session
    kept = tuple(key for key in secure.sent if key.client not in failed)
    gone = {summed_of(key) for key in secure.sent if key.client in failed}
    return replace(session, secure=replace(secure, sent=kept), summed=session.summed - gone)


def in_a_sum(session: Session, key: UpdateKey) -> bool:
    """Whether a commit can include this update: always in the clear, else only one that this worker masked itself and
    did not take back. A coordinator that may say of anybody that a round included him would decide whose state is how old.
    """
    return session.level == OFF or summed_of(key) in session.summed


def summed_of(key: UpdateKey) -> events.Summed:
    """What is remembered of an update that goes into a masked upload."""
    return key.round, key.base_digest, key.client


def _withdraw(session: Session) -> Session:
    """The attempt came to nothing here: what was uploaded for it is in no sum that this worker agreed to."""
    secure = session.secure
    if secure is None or secure.sent is None:
        return session
    return replace(session, summed=session.summed - {summed_of(key) for key in secure.sent})


# --------------------------------------------------------------------------------------------------------- parts


def _refuse(
    session: Session, round_id: bytes, reason: AbortReason, detail: str, out: list[Effect]
) -> Session:
    secure = session.secure
    if secure is None or secure.round_id != round_id:
        return _ignore(session, round_id, detail, out)
    if secure.over:
        return session
    _note(round_id, "secure_round_refused", "error", {"reason": reason.value, "detail": detail}, out)
    _refusal(session, reason, round_id, out)
    return _close(_withdraw(session), out)


def _close(session: Session, out: list[Effect]) -> Session:
    secure = session.secure
    if secure is None or secure.over:
        return session
    out.append(effects.CloseSecure(round_id=secure.round_id))
    current = session.work
    if (
        current is not None
        and current.upload is not None
        and current.upload.active
        and secure.sent is not None
    ):
        out.append(effects.StopUpload())
        session = replace(session, work=replace(current, upload=None))
    return replace(session, secure=replace(secure, over=True, ready=False, waiting=None))


def _refusal(session: Session, reason: AbortReason, round_id: bytes, out: list[Effect]) -> None:
    """Tell the coordinator. The detail may name files and numbers of this host, so it stays in the log."""
    if session.link is Link.ATTENDING:
        message = Refusal.of(reason, public_refusal(reason))
        out.append(effects.Send(message=messages.SecureMessage(round_id=round_id, content=encode(message))))


def _ignore(session: Session, round_id: bytes, why: str, out: list[Effect]) -> Session:
    _note(round_id, "secure_message_ignored", "debug", {"detail": why[:MAX_DETAIL]}, out)
    return session


def _note(round_id: bytes, event: str, level: str, fields: dict[str, object], out: list[Effect]) -> None:
    # A round id is public; a few digits of it tell one try from another.
    out.append(effects.Note(event=event, level=level, fields={"round_id": round_id.hex()[:8], **fields}))
