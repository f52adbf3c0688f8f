"""Whether a run and a task are within the policy of the federation, clause by clause."""

from __future__ import annotations

import math

from ssd.privacy.settings import PrivacySettings
from ssd.secagg.protocol.checks import refuse_unless
from ssd.secagg.protocol.errors import AbortReason
from ssd.trust.policy.federation_policy import MECHANISMS, FederationPolicy
from ssd.updates.declaration import Declaration


def check_policy(
    policy: FederationPolicy,
    declaration: Declaration,
    *,
    rounds: int,
    number: int,
    max_client_weight: int,
    privacy: PrivacySettings | None,
) -> None:
    """Whether the policy accepts all of it; the refusal names the clause that does not.

    Args:
        policy: of the pinned signer.
        declaration: of the run.
        rounds: how many the run plans in all.
        number: of the round, 1-based.
        max_client_weight: the most a client may weigh in a sum of the run.
        privacy: of the run; None: there is none.

    Raises:
        ssd.secagg.protocol.errors.Refused: it does not.
    """
    check_method(policy, declaration)
    refuse_unless(
        max(rounds, number) <= policy.max_rounds,
        AbortReason.OUTSIDE_POLICY,
        f"clause max_rounds: round {number} of {rounds}, accepted are {policy.max_rounds}",
    )
    refuse_unless(
        max_client_weight <= policy.max_client_weight,
        AbortReason.OUTSIDE_POLICY,
        f"clause max_client_weight: {max_client_weight}, accepted is {policy.max_client_weight}",
    )
    check_privacy(policy, privacy)


def check_method(policy: FederationPolicy, declaration: Declaration) -> None:
    """Whether a clause accepts the method with these settings."""
    clauses = policy.clauses(declaration.method, declaration.version)
    refuse_unless(
        bool(clauses),
        AbortReason.OUTSIDE_POLICY,
        f"clause methods: {declaration.method} (version {declaration.version}) is not among them",
    )
    if any(declaration.digest in each.declarations for each in clauses):
        return
    found = [each.outside(declaration.config) for each in clauses]
    refuse_unless(
        "" in found, AbortReason.OUTSIDE_POLICY, f"clause methods, {declaration.method}: {found[0]}"
    )


def check_privacy(policy: FederationPolicy, privacy: PrivacySettings | None) -> None:
    """Whether the run's differential privacy is no less than the policy's."""
    place = "off" if privacy is None else privacy.place.value
    refuse_unless(
        MECHANISMS.index(place) >= MECHANISMS.index(policy.mechanism),
        AbortReason.OUTSIDE_POLICY,
        f"clause privacy.mechanism: {place}, the least is {policy.mechanism}",
    )
    noise = 0.0 if privacy is None else privacy.noise_multiplier
    refuse_unless(
        noise >= policy.min_noise_multiplier,
        AbortReason.OUTSIDE_POLICY,
        f"clause privacy.min_noise_multiplier: {noise:g}, the least is {policy.min_noise_multiplier:g}",
    )
    for name, value, most in (
        ("max_clip_norm", math.inf if privacy is None else privacy.clip_norm, policy.max_clip_norm),
        ("max_delta", math.inf if privacy is None else privacy.delta, policy.max_delta),
    ):
        refuse_unless(
            most is None or value <= most,
            AbortReason.OUTSIDE_POLICY,
            f"clause privacy.{name}: {value:g}, accepted is {most}",
        )
