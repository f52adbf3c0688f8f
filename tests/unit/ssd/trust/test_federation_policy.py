"""The signed policy of a federation: what it accepts, and what nobody but its signer can have written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ssd.digest import canonical_json
from ssd.trust.policy.federation_policy import (
    FederationPolicy,
    MethodClause,
    PolicyRefused,
    _within,
    body_of,
    decode,
    encode,
    flat,
    policy_of,
)
from ssd.trust.policy.policy_pin import POLICY_PIN_FILE, accept_policy
from ssd.trust.registry_pin import PIN_FILE, Pin, create_pin
from ssd.trust.signing import SigningRefused, public_hex, sign

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
CLAUSE = MethodClause(
    name="ssd",
    version=1,
    declarations=("ab" * 32,),
    settings={"losses.gamma": {"min": 0.5, "max": 2}, "preset": ["official", "paper"], "epochs": {"min": 1}},
)
POLICY = FederationPolicy(
    federation="lab",
    version=3,
    issued_at=9,
    methods=(CLAUSE,),
    max_rounds=50,
    max_client_weight=64,
    mechanism="distributed",
    min_noise_multiplier=0.5,
    max_clip_norm=1.0,
    max_delta=1e-5,
)
GOOD: dict[str, Any] = {"losses": {"gamma": 1.0}, "preset": "paper", "epochs": 1}


def test_what_is_signed_is_read() -> None:
    assert decode(encode(POLICY, SIGNER), public_hex(SIGNER), "lab") == POLICY
    assert policy_of(body_of(POLICY)) == POLICY


def test_another_signer_and_another_federation() -> None:
    with pytest.raises(PolicyRefused, match="not signed by its signer"):
        decode(encode(POLICY, OTHER), public_hex(SIGNER), "lab")
    with pytest.raises(PolicyRefused, match="of the federation 'lab', not of 'field'"):
        decode(encode(POLICY, SIGNER), public_hex(SIGNER), "field")


def test_a_registrys_signature_is_none_of_a_policy() -> None:
    body = body_of(POLICY)
    signature = sign(SIGNER, "ssd-participants-v1", canonical_json(body))
    with pytest.raises(PolicyRefused, match="not signed"):
        decode(canonical_json({"policy": body, "signature": signature}), public_hex(SIGNER), "lab")


def test_no_byte_can_be_changed() -> None:
    content = encode(POLICY, SIGNER)
    for at in range(0, len(content), 7):
        changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        with pytest.raises(SigningRefused):
            decode(changed, public_hex(SIGNER), "lab")
    with pytest.raises(PolicyRefused, match="edited"):
        decode(json.dumps(json.loads(content), indent=1).encode(), public_hex(SIGNER), "lab")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (GOOD, ""),
        ({**GOOD, "losses": {"gamma": 0.5}}, ""),
        ({**GOOD, "losses": {"gamma": 0.49}}, "losses.gamma is 0.49"),
        ({**GOOD, "losses": {"gamma": 2.01}}, "losses.gamma is 2.01"),
        ({**GOOD, "losses": {"gamma": True}}, "losses.gamma is True"),
        ({**GOOD, "losses": {"gamma": float("nan")}}, "losses.gamma is nan"),
        ({**GOOD, "losses": {"gamma": "1"}}, "losses.gamma is '1'"),
        ({**GOOD, "losses": {"gamma": 1, "delta": 0}}, "losses.delta is not listed"),
        ({**GOOD, "losses": {}}, "losses is not listed"),
        ({**GOOD, "preset": "other"}, "preset is 'other'"),
        ({**GOOD, "epochs": 0}, "epochs is 0"),
        ({**GOOD, "lr": 0}, "lr is not listed"),
    ],
)
def test_every_setting_has_to_be_listed_and_within(config: dict[str, Any], said: str) -> None:
    assert CLAUSE.outside(config).startswith(said)
    assert bool(CLAUSE.outside(config)) == bool(said)


def test_truth_is_no_number_and_a_tuple_is_a_list() -> None:
    clause = MethodClause(name="m", version=1, settings={"on": [1], "mean": [[0.5, 0.5]], "none": [{}, None]})
    assert clause.outside({"on": True}) != ""
    assert clause.outside({"on": 1, "mean": (0.5, 0.5), "none": {}}) == ""
    assert clause.outside({"none": None}) == ""


def test_without_settings_only_listed_declarations_count() -> None:
    assert "not listed" in replace(CLAUSE, settings=None).outside({})


def test_nested_settings_are_dotted() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": ()}, "e": {}}) == {"a.b.c": 1, "a.d": [], "e": {}}


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "another format": lambda body: body.update(format="v0"),
    "a field too many": lambda body: body.update(more=1),
    "a field too few": lambda body: body.pop("max_rounds"),
    "no rounds": lambda body: body.update(max_rounds=0),
    "rounds that are true": lambda body: body.update(max_rounds=True),
    "no number of a version": lambda body: body.update(version="1"),
    "a federation that is none": lambda body: body.update(federation="no such name!"),
    "methods that are no list": lambda body: body.update(methods={}),
    "a method that is no table": lambda body: body.update(methods=[1]),
    "a method with a path for a name": lambda body: body["methods"][0].update(name="../x"),
    "a method without a name": lambda body: body["methods"][0].update(name=None),
    "a version that is none": lambda body: body["methods"][0].update(version="1"),
    "a digest that is none": lambda body: body["methods"][0].update(declarations=["zz"]),
    "declarations that are no list": lambda body: body["methods"][0].update(declarations="ab"),
    "settings that are no table": lambda body: body["methods"][0].update(settings=[]),
    "a range with a word": lambda body: body["methods"][0].update(settings={"x": {"least": 1}}),
    "an empty range": lambda body: body["methods"][0].update(settings={"x": {}}),
    "a range of texts": lambda body: body["methods"][0].update(settings={"x": {"min": "1"}}),
    "a bare value": lambda body: body["methods"][0].update(settings={"x": 1}),
    "privacy of another kind": lambda body: body["privacy"].update(mechanism="some"),
    "noise below nothing": lambda body: body["privacy"].update(min_noise_multiplier=-1),
    "a bound that is a text": lambda body: body["privacy"].update(max_delta="1"),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_clause_that_cannot_be(change: Callable[[dict[str, Any]], object]) -> None:
    body = json.loads(canonical_json(body_of(POLICY)))
    change(body)
    with pytest.raises(PolicyRefused):
        policy_of(body)


# ------------------------------------------------------------------------------------------------------ the pin


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_pin(tmp_path / PIN_FILE, Pin(federation="lab", signer=public_hex(SIGNER)))
    return tmp_path


def test_a_newer_policy_replaces_an_older_one_and_never_the_other_way_round(folder: Path) -> None:
    newer, older = replace(POLICY, version=4), POLICY
    assert accept_policy(folder, encode(older, SIGNER)) == older
    assert accept_policy(folder, encode(older, SIGNER)) == older
    assert accept_policy(folder, encode(newer, SIGNER)) == newer
    with pytest.raises(PolicyRefused, match="older than version 4"):
        accept_policy(folder, encode(older, SIGNER))
    with pytest.raises(PolicyRefused, match="two policies of version 4"):
        accept_policy(folder, encode(replace(newer, max_rounds=51), SIGNER))
    assert (folder / POLICY_PIN_FILE).stat().st_mode & 0o777 == 0o600


def test_nobody_but_the_pinned_signer(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused, match="not signed"):
        accept_policy(folder, encode(POLICY, OTHER))
    assert not (folder / POLICY_PIN_FILE).exists()
    with pytest.raises(SigningRefused):
        accept_policy(tmp_path / "nowhere", encode(POLICY, SIGNER))


def test_a_number_of_any_length_is_judged_and_ends_nothing() -> None:
    assert _within(10**400, {"max": 1.0}) is False
    assert _within(10**400, {"min": 1.0}) is True
    assert _within(-(10**400), {"min": 1.0}) is False
    assert _within(math.inf, {"min": 1.0}) is False
