"""A worker under a federation policy: it takes part in nothing outside it, and the refusal names the clause."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secure.secure_identities import FEDERATION, SecureIdentities
from secure.secure_session import train, welcome
from ssd.methods.synthetic.method import create
from ssd.privacy.settings import NoisePlace, PrivacySettings
from ssd.secagg.protocol.errors import AbortReason, Refused
from ssd.trust.policy.federation_policy import FederationPolicy, MethodClause, encode, flat
from ssd.trust.policy.policy_pin import POLICY_FILE
from ssd.updates.declaration import Declaration
from ssd_wire.messages import Train, Welcome
from worker.secure_aggregation.task_checks import Admission

DECLARATION = create({"parameters": 64}).declare()
CLAUSE = MethodClause(
    name="synthetic",
    version=DECLARATION.version,
    settings={name: [value] for name, value in flat(DECLARATION.config).items()}
    | {"scale": {"min": 0.001, "max": 0.1}},
)
POLICY = FederationPolicy(
    federation=FEDERATION, version=1, issued_at=1, methods=(CLAUSE,), max_rounds=10, max_client_weight=4
)
TASK, WELCOME = train("a"), welcome().welcome
NOISE = PrivacySettings(place=NoisePlace.DISTRIBUTED, clip_norm=1.0, noise_multiplier=1.0, delta=1e-6)


@pytest.fixture
def identities(tmp_path: Path) -> SecureIdentities:
    return SecureIdentities(tmp_path, ("w1",))


def publish(identities: SecureIdentities, policy: FederationPolicy) -> None:
    (identities.folder / "w1" / POLICY_FILE).write_bytes(encode(policy, identities.signer))


def admission(identities: SecureIdentities, *, needs: bool = True) -> Admission:
    return Admission(identity=identities.identity("w1"), needs_policy=needs)


def refused(
    identities: SecureIdentities,
    *,
    declaration: Declaration = DECLARATION,
    told: Welcome = WELCOME,
    task: Train = TASK,
) -> Refused:
    with pytest.raises(Refused) as caught:
        admission(identities).check(declaration, told, task)
    return caught.value


def test_what_the_policy_accepts_is_trained(identities: SecureIdentities) -> None:
    publish(identities, POLICY)
    admission(identities).check(DECLARATION, WELCOME, TASK)
    admission(identities).check(create({"parameters": 64, "scale": 0.1}).declare(), WELCOME, TASK)


def test_a_declaration_whose_digest_is_listed_needs_no_ranges(identities: SecureIdentities) -> None:
    clause = replace(CLAUSE, settings=None, declarations=(DECLARATION.digest,))
    publish(identities, replace(POLICY, methods=(clause,)))
    admission(identities).check(DECLARATION, WELCOME, TASK)
    other = create({"parameters": 65}).declare()
    assert "its declaration is not listed" in refused(identities, declaration=other).detail


OUTSIDE: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "a weight that leaves nothing but one part": (
        {"scale": 1e-9},
        {},
        {},
        "clause methods, synthetic: scale",
    ),
    "less local work than is listed": ({"max_weight": 1}, {}, {}, "clause methods, synthetic: max_weight"),
    "a run without end": ({}, {}, {"rounds": 11}, "clause max_rounds"),
    "a round after the last": ({}, {}, {"round": 11}, "clause max_rounds"),
    "a weight that outweighs": ({}, {"max_client_weight": 5}, {}, "clause max_client_weight"),
}


@pytest.mark.parametrize(("config", "masking", "task", "clause"), OUTSIDE.values(), ids=OUTSIDE)
def test_outside_a_clause(
    identities: SecureIdentities,
    config: dict[str, Any],
    masking: dict[str, Any],
    task: dict[str, Any],
    clause: str,
) -> None:
    publish(identities, POLICY)
    assert WELCOME.masking is not None
    found = refused(
        identities,
        declaration=create({"parameters": 64, **config}).declare(),
        told=replace(WELCOME, masking=replace(WELCOME.masking, **masking)),
        task=replace(TASK, **task),
    )
    assert found.reason is AbortReason.OUTSIDE_POLICY
    assert clause in found.detail


def test_another_method_or_version_of_it(identities: SecureIdentities) -> None:
    publish(identities, replace(POLICY, methods=(replace(CLAUSE, version=99),)))
    assert "is not among them" in refused(identities).detail
    publish(identities, replace(POLICY, version=2, methods=()))
    assert refused(identities).reason is AbortReason.OUTSIDE_POLICY


PRIVATE = replace(
    POLICY, mechanism="distributed", min_noise_multiplier=1.0, max_clip_norm=1.0, max_delta=1e-6
)
LESS: dict[str, tuple[PrivacySettings | None, str]] = {
    "none": (None, "privacy.mechanism"),
    "the coordinator's": (replace(NOISE, place=NoisePlace.CENTRAL), "privacy.mechanism"),
    "less noise": (replace(NOISE, noise_multiplier=0.99), "privacy.min_noise_multiplier"),
    "more influence": (replace(NOISE, clip_norm=1.01), "privacy.max_clip_norm"),
    "more chance to fail": (replace(NOISE, delta=1e-5), "privacy.max_delta"),
}


@pytest.mark.parametrize(("privacy", "clause"), LESS.values(), ids=LESS)
def test_less_privacy_than_agreed(
    identities: SecureIdentities, privacy: PrivacySettings | None, clause: str
) -> None:
    publish(identities, PRIVATE)
    admission(identities).check(DECLARATION, replace(WELCOME, privacy=NOISE), TASK)
    found = refused(identities, told=replace(WELCOME, privacy=privacy))
    assert found.reason is AbortReason.OUTSIDE_POLICY
    assert clause in found.detail


def test_bounds_of_a_privacy_that_is_not_asked_for_want_one_all_the_same(
    identities: SecureIdentities,
) -> None:
    publish(identities, replace(POLICY, max_clip_norm=1.0))
    assert "max_clip_norm" in refused(identities).detail


def test_no_policy_no_part(identities: SecureIdentities) -> None:
    found = refused(identities)
    assert found.reason is AbortReason.NO_POLICY
    assert "ssd-coordinator policy" in found.detail
    admission(identities, needs=False).check(DECLARATION, WELCOME, TASK)


def test_a_policy_that_is_there_counts_also_where_none_is_required(identities: SecureIdentities) -> None:
    publish(identities, replace(POLICY, methods=()))
    with pytest.raises(Refused, match="outside_policy"):
        admission(identities, needs=False).check(DECLARATION, WELCOME, TASK)


def test_a_policy_that_was_seen_does_not_go_away(identities: SecureIdentities) -> None:
    publish(identities, POLICY)
    admission(identities, needs=False).check(DECLARATION, WELCOME, TASK)
    identities.forget("w1", POLICY_FILE)
    with pytest.raises(Refused, match=r"no_policy.*is gone"):
        admission(identities, needs=False).check(DECLARATION, WELCOME, TASK)


def test_a_policy_of_another_signer_is_none(identities: SecureIdentities, tmp_path: Path) -> None:
    stranger = SecureIdentities(tmp_path / "elsewhere", ("w1",))
    (identities.folder / "w1" / POLICY_FILE).write_bytes(encode(POLICY, stranger.signer))
    assert refused(identities).reason is AbortReason.NO_POLICY


def test_a_client_that_outweighs_all_others(identities: SecureIdentities) -> None:
    """A victim of weight 1,024 among four of weight 1 is the sum."""
    agreed = Admission(identity=identities.identity("w1"), max_weight_ratio=4)
    agreed.check(DECLARATION, WELCOME, TASK)
    assert WELCOME.masking is not None
    heavier = replace(WELCOME, masking=replace(WELCOME.masking, max_client_weight=5))
    with pytest.raises(Refused, match="policy_weight"):
        agreed.check(DECLARATION, heavier, TASK)
