"""The public transcript, what an auditor finds in it, and one whole round frozen byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure.secure_rounds import CONFIG, MODEL, Drawn, Federation, names_of, offer_for, registry, signing_key
from ssd.secagg.audit import transcript
from ssd.secagg.audit.audit import Audited, AuditFailed, audit, check_follows
from ssd.secagg.client.round_keys import RoundKeys
from ssd.secagg.protocol import keys
from ssd.secagg.protocol.errors import MalformedMessage
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.layout import Layout
from ssd.secagg.protocol.messages import (
    Graph,
    Message,
    Offer,
    Opened,
    Roster,
    SetProof,
    SetSignature,
    Sharers,
    Survivors,
    decode,
    digest,
    encode,
)
from ssd.secagg.protocol.signatures import sign_advert, sign_survivors

NAMES = names_of(10)
GOLDEN = Path(__file__).resolve().parents[4] / "golden" / "secagg_round.txt"


@cache
def opened_round(level: Level = Level.ACTIVE, number: int = 1, **changes: Any) -> tuple[bytes, ...]:
    fields = {"round": number, "round_id": number.to_bytes(16, "big"), "model_digest": model(number - 1)}
    offer = offer_for(10, level, **(fields | changes))
    f = Federation(offer=offer, names=NAMES)
    f.advertise(NAMES)
    f.share(NAMES)
    f.deliver(NAMES)
    f.upload(NAMES[1:])
    f.survive(NAMES[1:])
    f.reveal(NAMES[1:])
    f.aggregator.finish(hashlib.sha256(f.open()).digest(), model(number))
    return tuple(f.aggregator.transcript)


def model(version: int) -> bytes:
    """Digest of a version."""
    return hashlib.sha256(f"version {version}".encode()).digest()


def messages(level: Level = Level.ACTIVE, number: int = 1, **changes: Any) -> list[Any]:
    return [decode(each) for each in opened_round(level, number, **changes)]


def content(told: list[Message], before: bytes = transcript.NO_HEAD) -> bytes:
    return transcript.write([encode(each) for each in told], before)


def fails(told: list[Message], words: str, *, known: tuple[str, ...] = NAMES) -> None:
    with pytest.raises(AuditFailed, match=words):
        audit(content(told), registry(known))


def rebuilt(level: Level, change: Callable[[list[Any]], None]) -> list[Any]:
    """The round with some message changed, and everything later that a coordinator could make fit made fit."""
    told = messages(level)
    change(told)
    offer, roster, sharers, survivors, *rest = told
    context = keys.round_context(offer, roster)
    survivors = replace(survivors, sharers_digest=keys.sharers_digest(context, sharers.names))
    return [offer, roster, sharers, survivors, *rest]


@pytest.mark.parametrize("level", list(Level))
def test_an_opened_round_passes(level: Level) -> None:
    told = messages(level)
    found = audit(content(told), registry(NAMES))
    assert found.participants == found.sharers == NAMES
    assert found.survivors == NAMES[1:]
    assert found.opened.survivors == 9
    assert (found.threshold, found.neighbours) == (6, 9)
    assert found.signatures == (9 if level is Level.ACTIVE else 0)
    assert audit(content(told), registry(NAMES), opened_digest=found.opened.opened_digest) == found


def audited(*rounds: list[Any]) -> list[Audited]:
    """All of them, each chained to the one before."""
    found: list[Audited] = []
    for told in rounds:
        before = found[-1].head if found else transcript.NO_HEAD
        found.append(audit(content(told, before), registry(NAMES), before=before))
    return found


def test_rounds_are_chained() -> None:
    first, second, third = audited(*(messages(number=number) for number in (1, 2, 3)))
    assert (second.before, third.before) == (first.head, second.head)
    with pytest.raises(AuditFailed, match="does not continue"):
        audit(content(messages(number=2), first.head), registry(NAMES), before=bytes(32))
    for earlier, each in (([], first), ([first], second), ([first, second], third), ([first], third)):
        check_follows(earlier, each)


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"number": 1}, "round id is that of round 1 again"),
        ({"number": 2, "round_id": (1).to_bytes(16, "big")}, "round id is that of round 1 again"),
        ({"number": 2, "model_digest": model(0)}, "was opened in round 1 already"),
        ({"number": 7, "model_digest": model(0)}, "was opened in round 1 already"),
        ({"number": 2, "model_digest": model(7)}, "does not begin at the model that round 1 made"),
        ({"number": 2, "round": 1}, "round 1 stands after round 1"),
    ],
)
def test_rounds_that_cannot_follow_one_another_are_noticed(second: dict[str, Any], words: str) -> None:
    """Well chained and well signed, each for itself: what is wrong shows in both together only."""
    first, again = audited(messages(), messages(**second))
    with pytest.raises(AuditFailed, match=words):
        check_follows([first], again)


def test_a_round_has_to_differ_from_every_one_before_it_and_come_after_the_last() -> None:
    first, second, third = audited(*(messages(number=number) for number in (1, 2, 3)))
    with pytest.raises(AuditFailed, match="round 2 stands after round 3"):
        check_follows([first, third], second)
    fourth = audited(messages(number=4, model_digest=model(0)))[0]
    with pytest.raises(AuditFailed, match="in round 1 already"):
        check_follows([first, second, third], fourth)


def test_level_passive_needs_no_registry_and_level_active_does() -> None:
    assert audit(content(messages(Level.PASSIVE)), None).signatures == 0
    with pytest.raises(AuditFailed, match="only be audited with the registry"):
        audit(content(messages()), None)


def test_another_vector_is_noticed() -> None:
    with pytest.raises(AuditFailed, match="another vector"):
        audit(content(messages()), registry(NAMES), opened_digest=bytes(32))


@pytest.mark.parametrize("index", range(6))
def test_a_message_that_is_missing_or_out_of_order_is_noticed(index: int) -> None:
    told = messages()
    fails(told[:index], "ends before")
    fails([*told[:index], *told[index + 1 :]], "stands where|ends before")


def test_what_follows_the_end_is_noticed() -> None:
    fails([*messages(), messages()[-1]], "follow the end")


def edit(index: int, **changes: Any) -> Callable[[list[Any]], None]:
    def change(told: list[Any]) -> None:
        told[index] = replace(told[index], **changes)

    return change


def advert(position: int, **changes: Any) -> Callable[[list[Any]], None]:
    def change(told: list[Any]) -> None:
        adverts = list(told[1].adverts)
        adverts[position] = replace(adverts[position], **changes)
        told[1] = Roster(adverts=tuple(adverts))

    return change


PASSIVE_FAULTS: dict[str, tuple[Callable[[list[Any]], None], str]] = {
    "more than were offered": (edit(0, participants=9), "more participants than were offered"),
    "a fraction that is none": (edit(0, delta_ppm=1_000_000), "fraction"),
    "no threshold": (edit(0, gamma_ppm=900_000), "threshold"),
    "a point of small order": (advert(0, mask_key=bytes(32)), "small|large order"),
    "a channel key of small order": (advert(0, channel_key=bytes(32)), "small|large order"),
    "a sharer from outside": (edit(2, names=(*NAMES, "x")), "sharer is not in the roster"),
    "too few sharers": (edit(2, names=NAMES[3:]), "7 shared their keys, at least 8"),
    "a survivor that did not share": (edit(2, names=NAMES[:9]), "survivor did not share"),
    "too few survivors": (edit(3, names=NAMES[3:]), "7 survived, at least 8"),
    "another number in the sum": (edit(4, survivors=8), "another number of participants"),
}


@pytest.mark.parametrize(("change", "words"), PASSIVE_FAULTS.values(), ids=PASSIVE_FAULTS)
def test_a_round_that_was_not_as_it_has_to_be_is_noticed(
    change: Callable[[list[Any]], None], words: str
) -> None:
    fails(rebuilt(Level.PASSIVE, change), words)


@pytest.mark.parametrize("field", ["channel_key", "mask_key", "nonce", "commitment"])
def test_a_value_two_participants_share_is_noticed(field: str) -> None:
    stolen = getattr(messages(Level.PASSIVE)[1].adverts[0], field)
    fails(rebuilt(Level.PASSIVE, advert(1, **{field: stolen})), "two adverts share")


def test_a_survivor_set_of_another_round_is_noticed() -> None:
    told = messages(Level.PASSIVE)
    told[3] = replace(told[3], sharers_digest=MODEL)
    fails(told, "belongs to another offer")


def test_a_hole_in_the_ring_is_noticed() -> None:
    names = names_of(66)
    offer = offer_for(66, Level.PASSIVE, graph=Graph.RING, gamma_ppm=100_000, delta_ppm=300_000)
    roster = Roster(adverts=tuple(RoundKeys(name, Drawn(name)).advert(offer) for name in names))
    layout = Layout.of(offer, roster)
    near = layout.neighbours(names[0])[: layout.neighbour_count + 2 - layout.threshold]
    left = tuple(name for name in names if name not in near)
    for sharers, survivors, what in ((left, left, "shared"), (names, left, "survived")):
        told: list[Message] = [
            offer,
            roster,
            Sharers(names=sharers),
            Survivors(sharers_digest=keys.sharers_digest(layout.context, sharers), names=survivors),
            Opened(opened_digest=MODEL, survivors=len(survivors), next_model_digest=MODEL),
        ]
        fails(told, f"too few neighbours of a participant {what}")


def test_an_unknown_participant_is_noticed() -> None:
    fails(messages(), "w000 is not in the registry", known=NAMES[1:])


def test_an_advert_its_participant_did_not_sign_is_noticed() -> None:
    def forge(told: list[Any]) -> None:
        evil = RoundKeys(NAMES[0], Drawn("evil")).advert(told[0])
        told[1] = Roster(
            adverts=(sign_advert(signing_key("evil"), digest(told[0]), evil), *told[1].adverts[1:])
        )

    fails(rebuilt(Level.ACTIVE, forge), "advert of w000 is not signed")


def test_an_offer_changed_afterwards_is_noticed() -> None:
    fails(rebuilt(Level.ACTIVE, edit(0, config_digest=MODEL)), "advert of w000 is not signed")
    assert CONFIG != MODEL


def proof_of(signatures: tuple[SetSignature, ...]) -> list[Any]:
    told = messages()
    told[4] = SetProof(signatures=signatures)
    return told


def test_signatures_that_do_not_count_are_noticed() -> None:
    told = messages()
    signatures = told[4].signatures
    dropped = sign_survivors(signing_key(NAMES[0]), NAMES[0], told[3])
    fails(proof_of((dropped, *signatures)), "w000 signed, but is no survivor")
    fails(proof_of(signatures[:5]), "5 signed the survivor set, 8 are needed")
    fails(proof_of(signatures[:7]), "7 signed the survivor set, 8 are needed")
    moved = replace(signatures[0], signature=signatures[1].signature)
    fails(proof_of((moved, *signatures[1:])), "w001 did not sign")
    assert audit(content(proof_of(signatures[:8])), registry(NAMES)).signatures == 8


# ------------------------------------------------------------------------------------------------ the file itself


def test_a_transcript_is_read_as_it_was_written() -> None:
    read = transcript.read(content(messages(), MODEL))
    assert list(read.messages) == messages()
    assert read.before == MODEL
    assert transcript.read(content(messages()[:3])).messages == tuple(messages()[:3])


def test_every_changed_byte_is_noticed() -> None:
    whole = content(messages(Level.PASSIVE))
    for index in range(len(transcript.MAGIC), len(whole), 37):
        changed = bytearray(whole)
        changed[index] ^= 1
        with pytest.raises(AuditFailed):
            audit(bytes(changed), None)


def test_what_is_no_transcript_is_refused() -> None:
    for bad in (b"", b"x", transcript.MAGIC, transcript.MAGIC + bytes(31), bytes(transcript.MAX_BYTES + 1)):
        with pytest.raises(MalformedMessage):
            transcript.read(bad)
        with pytest.raises(AuditFailed):
            audit(bad, None)


def test_a_transcript_of_another_format_or_too_large_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = content(messages(Level.PASSIVE))
    with pytest.raises(MalformedMessage, match="no transcript"):
        transcript.read(whole.replace(b"transcript-v1", b"transcript-v9", 1))
    monkeypatch.setattr(transcript, "MAX_BYTES", len(whole) - 1)
    with pytest.raises(MalformedMessage, match="at most"):
        transcript.read(whole)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tail: bytes) -> None:
    for start in (b"", transcript.MAGIC, content(messages(Level.PASSIVE)[:1])):
        with pytest.raises(AuditFailed):
            audit(start + tail, None)


def test_a_transcript_holds_nothing_secret() -> None:
    f = Federation(offer=offer_for(10), names=NAMES)
    f.advertise(NAMES)
    owns = [f[name]._own for name in NAMES]
    secrets = [value for own in owns if own for value in (own._mask_seed, own._self_secret)]
    f.share(NAMES)
    f.deliver(NAMES)
    shares = [share for name in NAMES for pair in f[name]._held.values() for share in pair]
    masks = [mask.key for name in NAMES for mask in f[name].masks()]
    f.upload(NAMES)
    f.survive(NAMES)
    f.reveal(NAMES)
    f.aggregator.finish(hashlib.sha256(f.open()).digest(), MODEL)
    whole = content([decode(each) for each in f.aggregator.transcript])
    assert len(secrets) == 20
    assert not any(value in whole or value.hex().encode() in whole for value in (*secrets, *shares, *masks))


# --------------------------------------------------------------------------------------------- one round, frozen


def frozen_round() -> str:
    """Everything that is said in a round of four with fixed keys, in which one drops out; and its masks."""
    names = names_of(5)
    f = Federation(offer=offer_for(5), names=names)
    lines = [("offer", encode(f.offer))]
    lines += [(f"advert {name}", encode(each)) for name, each in f.advertise(names).items()]
    lines += [(f"bundle {name}", encode(each)) for name, each in f.share(names).items()]
    assert f.aggregator.roster is not None
    lines.append(("roster", encode(f.aggregator.roster)))
    lines += [(f"delivery {name}", encode(each)) for name, each in f.deliver(names).items()]
    for name in names[:4]:
        lines += [(f"mask {name} {mask.sign:+}", mask.key) for mask in f[name].masks()]
    f.upload(names[:4])
    lines += [(f"upload {name}", words.tobytes()) for name, words in f.uploads.items()]
    lines.append(("survivors", encode(f.survive(names[:4]))))
    f.reveal(names[:4])
    lines += [(f"reveal {name}", encode(each)) for name, each in f.aggregator._opening.reveals.items()]
    lines.append(("opened", f.open().tobytes()))
    f.aggregator.finish(hashlib.sha256(f.open()).digest(), MODEL)
    lines.append(("transcript", transcript.write(f.aggregator.transcript)))
    return "".join(f"{what}: {value.hex()}\n" for what, value in lines)


def test_a_whole_round_is_what_it_was_byte_for_byte() -> None:
    """The wire-compatibility test: a change here is another protocol, and needs another version byte."""
    assert frozen_round() == GOLDEN.read_text()


def test_the_frozen_round_opens_to_the_sum() -> None:
    last = {
        line.split(": ")[0]: bytes.fromhex(line.split(": ")[1]) for line in GOLDEN.read_text().splitlines()
    }
    assert last["opened"] == b"".join(value.to_bytes(4, "little") for value in (1, 1, 1, 1, 0))
    found = audit(last["transcript"], registry(names_of(5)))
    assert found.opened.opened_digest == hashlib.sha256(last["opened"]).digest()
    assert isinstance(decode(last["offer"]), Offer)
