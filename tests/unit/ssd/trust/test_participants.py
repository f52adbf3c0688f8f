"""The registry of participants: one spelling, one signer, only forwards."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.digest import canonical_json
from ssd.trust.participants import (
    FORMAT,
    MAX_BYTES,
    Participant,
    Registry,
    RegistryRefused,
    decode,
    encode,
    introduce,
)
from ssd.trust.registry_pin import Pin, accept, create_pin, read_pin
from ssd.trust.signing import SigningRefused, check, create_key_file, public_hex, read_key_file, sign

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = public_hex(SIGNER)
FEDERATION = "hospital"


@cache
def own_key(worker: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(worker.encode().ljust(32, b"."))


@cache
def participant(worker: str, clients: tuple[str, ...] = (), max_weight: int = 10) -> Participant:
    told = introduce(FEDERATION, worker, own_key(worker))
    return Participant(
        worker=worker, key=told["key"], proof=told["proof"], clients=clients, max_weight=max_weight
    )


def registry(*participants: Participant, version: int = 1) -> Registry:
    return Registry(
        federation=FEDERATION, version=version, issued_at=1_700_000_000, participants=participants
    )


TWO = registry(participant("alpha", ("a", "b")), participant("beta", ("c",)))
SIGNED = encode(TWO, SIGNER)


def forged(**changes: Any) -> bytes:
    """A properly signed file whose body was made by hand."""
    body = {**json.loads(SIGNED)["registry"], **changes}
    return canonical_json({"registry": body, "signature": sign(SIGNER, FORMAT, canonical_json(body))})


def entry(**changes: Any) -> dict[str, Any]:
    return {**json.loads(SIGNED)["registry"]["participants"][0], **changes}


def test_what_was_signed_is_what_is_read() -> None:
    assert decode(SIGNED, PUBLIC, FEDERATION) == TWO
    assert encode(decode(SIGNED, PUBLIC, FEDERATION), SIGNER) == SIGNED
    assert decode(forged(), PUBLIC, FEDERATION) == TWO


@given(
    names=st.sets(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,15}", fullmatch=True), max_size=5),
    version=st.integers(1, 1 << 40),
    weight=st.integers(1, 1 << 40),
)
@settings(max_examples=50, deadline=None)
def test_any_registry_survives_its_file(names: set[str], version: int, weight: int) -> None:
    entries = tuple(participant(name, (f"{name}.1", f"{name}.2"), weight) for name in sorted(names))
    made = registry(*entries, version=version)
    assert decode(encode(made, SIGNER), PUBLIC, FEDERATION) == made


def test_a_change_of_any_byte_is_refused() -> None:
    for position in range(len(SIGNED)):
        for bit in (1, 32):
            content = bytearray(SIGNED)
            content[position] ^= bit
            with pytest.raises(RegistryRefused):
                decode(bytes(content), PUBLIC, FEDERATION)


def test_a_cut_a_padded_and_an_oversized_file_are_refused() -> None:
    for end in range(len(SIGNED)):
        with pytest.raises(RegistryRefused):
            decode(SIGNED[:end], PUBLIC, FEDERATION)
    for content in (SIGNED + b"\n", b" " + SIGNED, SIGNED * 2, b"[" * 100_000, b'"' + b"x" * MAX_BYTES):
        with pytest.raises(RegistryRefused):
            decode(content, PUBLIC, FEDERATION)


def test_another_spelling_of_the_same_content_is_refused() -> None:
    value = json.loads(SIGNED)
    swapped = {"signature": value["signature"], "registry": value["registry"]}
    for content in (json.dumps(value), json.dumps(swapped, separators=(",", ":"))):
        with pytest.raises(RegistryRefused, match="not spelt as it was signed"):
            decode(content.encode(), PUBLIC, FEDERATION)
    twice = SIGNED.replace(b'"version":1', b'"version":2,"version":1')
    with pytest.raises(RegistryRefused):
        decode(twice, PUBLIC, FEDERATION)


def test_only_the_signers_signature_counts_and_only_for_this_purpose() -> None:
    other = Ed25519PrivateKey.generate()
    with pytest.raises(RegistryRefused, match="not signed by its signer"):
        decode(encode(TWO, other), PUBLIC, FEDERATION)
    body = json.loads(SIGNED)["registry"]
    elsewhere = {"registry": body, "signature": sign(SIGNER, "another purpose", canonical_json(body))}
    with pytest.raises(RegistryRefused, match="not signed by its signer"):
        decode(canonical_json(elsewhere), PUBLIC, FEDERATION)
    with pytest.raises(RegistryRefused, match="'hospital', not of 'school'"):
        decode(SIGNED, PUBLIC, "school")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"format": "ssd-participants-v2"}, "format"),
        ({"version": 0}, "whole numbers"),
        ({"version": True}, "must be int"),
        ({"version": 1.5}, "must be int"),
        ({"issued_at": -1}, "whole numbers"),
        ({"federation": "a/b"}, "no federation"),
        ({"extra": 1}, "exactly"),
        ({"participants": {}}, "must be list"),
        ({"participants": [entry(), entry()]}, "twice"),
        ({"participants": [entry(max_weight=0)]}, "max_weight"),
        ({"participants": [entry(max_weight=1 << 41)]}, "max_weight"),
        ({"participants": [entry(clients=["b", "a"])]}, "not in order"),
        ({"participants": [entry(clients=["a", "a"])]}, "twice"),
        ({"participants": [entry(clients=["a/b"])]}, "client id"),
        ({"participants": [entry(clients=[1])]}, "client id"),
        ({"participants": [entry(clients=[["a"]])]}, "client id"),
        ({"participants": [entry(worker="x y")]}, "is no name"),
        ({"participants": [entry(worker="gamma")]}, "not proved"),
        ({"participants": [entry(key="0" * 64)]}, "not proved"),
        ({"participants": [entry(key="AB" * 32)]}, "hex digits"),
        ({"participants": [entry(proof="0" * 127)]}, "hex digits"),
        ({"participants": [{}]}, "exactly"),
        ({"participants": list(reversed(json.loads(SIGNED)["registry"]["participants"]))}, "order"),
    ],
)
def test_even_the_signer_cannot_make_these_count(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(RegistryRefused, match=word):
        decode(forged(**changes), PUBLIC, FEDERATION)


def test_a_key_or_a_client_of_two_workers_is_refused() -> None:
    alpha = participant("alpha", ("a",))
    with pytest.raises(RegistryRefused, match="client a stands"):
        registry(alpha, participant("beta", ("a",)))
    with pytest.raises(RegistryRefused, match="key .* stands"):
        registry(alpha, replace(participant("beta"), key=alpha.key))


# ---------------------------------------------------------------------------------------------------- the pin


def test_a_worker_goes_only_forwards(tmp_path: Path) -> None:
    pin = tmp_path / "participants.pin"
    create_pin(pin, Pin(federation=FEDERATION, signer=PUBLIC))
    first, second = encode(TWO, SIGNER), encode(replace(TWO, version=2), SIGNER)
    assert accept(pin, first) == TWO
    assert accept(pin, first) == TWO
    assert accept(pin, second).version == 2
    assert (read_pin(pin).version, stat.S_IMODE(pin.stat().st_mode)) == (2, 0o600)
    with pytest.raises(RegistryRefused, match="older than version 2"):
        accept(pin, first)
    with pytest.raises(RegistryRefused, match="two registries of version 2"):
        accept(pin, encode(replace(TWO, version=2, issued_at=5), SIGNER))
    with pytest.raises(RegistryRefused):
        accept(pin, encode(replace(TWO, version=3), Ed25519PrivateKey.generate()))
    assert read_pin(pin).version == 2


def test_a_pin_is_set_once(tmp_path: Path) -> None:
    pin = tmp_path / "participants.pin"
    create_pin(pin, Pin(federation=FEDERATION, signer=PUBLIC))
    accept(pin, SIGNED)
    create_pin(pin, Pin(federation=FEDERATION, signer=PUBLIC))
    assert read_pin(pin).version == 1
    for other in (Pin(federation="school", signer=PUBLIC), Pin(federation=FEDERATION, signer="0" * 64)):
        with pytest.raises(RegistryRefused, match="pins another signer"):
            create_pin(pin, other)
    with pytest.raises(RegistryRefused, match="64 lower-case hex"):
        create_pin(tmp_path / "new", Pin(federation=FEDERATION, signer="no key"))
    pin.write_text("{}")
    with pytest.raises(RegistryRefused, match="no pin"):
        accept(pin, SIGNED)


# ---------------------------------------------------------------------------------------------------- the keys


def test_a_key_file_is_its_owners_and_made_once(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    key = create_key_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_hex(read_key_file(path)) == public_hex(key)
    with pytest.raises(FileExistsError):
        create_key_file(path)
    (tmp_path / "other").write_text("nonsense")
    for wrong in ("other", "missing"):
        with pytest.raises(SigningRefused):
            read_key_file(tmp_path / wrong)


def test_a_signature_is_about_its_domain_and_its_content() -> None:
    made = sign(SIGNER, "one", b"content")
    check(PUBLIC, "one", b"content", made)
    for public, domain, content, signature in (
        (PUBLIC, "two", b"content", made),
        (PUBLIC, "one", b"contents", made),
        (public_hex(own_key("alpha")), "one", b"content", made),
        (PUBLIC, "one", b"content", made.upper()),
        (PUBLIC, "one", b"content", made[:-2]),
        ("", "one", b"content", made),
    ):
        with pytest.raises(SigningRefused):
            check(public, domain, content, signature)
