"""The account of differential privacy: what the sums opened so far cost, and under which assumptions."""

from __future__ import annotations

from dataclasses import dataclass

from ssd.privacy.noise import ORDERS, NoisePlan
from ssd.privacy.settings import NoisePlace, PrivacyRefused


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivacySpent:
    """What rounds have cost so far, and under which assumptions."""

    epsilon: float
    delta: float
    rounds: int
    assumptions: tuple[str, ...]


def spent(plan: NoisePlan, rounds: int, honest: int) -> PrivacySpent:
    """(epsilon, delta) of so many opened rounds by Renyi composition, converted by `dp_accounting`.

    No amplification by sampling is claimed: it counts as if every client took part in every round.

    Args:
        plan: the run's.
        rounds: opened sums, those of abandoned attempts included.
        honest: the smallest number of honest participants that any of these sums held.

    Raises:
        PrivacyRefused: a sum held fewer honest participants than the noise was made for; or dp-accounting is missing.
    """
    if honest < plan.fewest_honest:
        raise PrivacyRefused(
            f"a sum held {honest} honest participants, the noise is made for at least {plan.fewest_honest}: "
            "no epsilon can be given"
        )
    if rounds < 0:
        raise PrivacyRefused(f"{rounds} rounds")
    try:
        from dp_accounting.rdp import rdp_privacy_accountant
    except ImportError as error:
        raise PrivacyRefused("accounting needs the package dp-accounting: install the extra [dp]") from error
    epsilon = 0.0
    if rounds:
        costs = [rounds * plan.renyi(order) for order in ORDERS]
        epsilon = float(rdp_privacy_accountant.compute_epsilon(ORDERS, costs, plan.settings.delta)[0])
    return PrivacySpent(
        epsilon=epsilon, delta=plan.settings.delta, rounds=rounds, assumptions=_assumptions(plan)
    )


def _assumptions(plan: NoisePlan) -> tuple[str, ...]:
    noise = (
        f"at least {plan.fewest_honest} participants of every opened sum are honest and added their noise"
        if plan.settings.place is NoisePlace.DISTRIBUTED
        else "the coordinator is trusted with the sum and adds the noise"
    )
    return (
        "neighbouring runs differ in one client's update, replaced by zero in every round; how many took part is public",
        noise,
        "participants clip their clients' updates as agreed",
        "no amplification by sampling is claimed",
        "the noise is sampled in floating point, from a generator seeded with secret random bytes",
    )
