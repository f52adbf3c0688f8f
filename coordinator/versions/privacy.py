"""Differential privacy in the coordinator: noise where it is the coordinator's to add, and the account of what rounds cost.

The account is kept in the versions: each has the epsilon of its round and of all rounds up to it, and how many honest
participants its sum held at least. The settings are fixed for the run, so what is stored is enough after any restart.
A sum that was opened and could not be committed is in the journal, and what is shown counts it.
No epsilon is stored or shown once a sum held fewer honest participants than the noise was made for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.ports.figures import PrivacyCost
from ssd.privacy.account import PrivacySpent, spent
from ssd.privacy.noise import NoisePlan, add_central_noise
from ssd.privacy.settings import NoisePlace, PrivacyRefused
from ssd.updates.fold import Fold


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """What all opened sums of a run cost."""

    beside: PrivacyCost | None = None
    """What replaces all that the newest version says: a sum was opened and is in no version."""
    statement: str = ""
    """For people."""


class Privacy:
    """Of one run.

    Args:
        plan: how much noise a sum holds.
        entropy: n secret uniform bytes.

    Raises:
        PrivacyRefused: nothing can be accounted for here (the package is missing).
    """

    def __init__(self, plan: NoisePlan, entropy: Callable[[int], bytes]) -> None:
        self._plan = plan
        self._entropy = entropy
        self._round_epsilon = spent(plan, 1, plan.fewest_honest).epsilon

    @property
    def central(self) -> bool:
        """Whether the coordinator adds the noise."""
        return self._plan.settings.place is NoisePlace.CENTRAL

    def add_noise(self, fold: Fold) -> None:
        """All the noise of a round, onto the exact sum of a closed attempt; nothing if the participants added it.

        Drawn anew whenever a sum is opened: a commit that did not come to pass published nothing.
        """

        def add(total: NDArray[np.int64]) -> None:
            add_central_noise(total, self._plan, self._entropy)

        if self.central:
            fold.add_noise(add)

    def spent(self, rounds: int, honest: int, before: PrivacyCost | None) -> PrivacyCost | None:
        """What a version says: of its round, and of all up to it.

        Args:
            rounds: how many sums were opened, this one included.
            honest: participants of this sum that are not assumed corrupt.
            before: what the version before says.
        """
        if rounds > 1:
            honest = min(honest, 0 if before is None else before.honest)
        try:
            total = spent(self._plan, rounds, honest)
        except PrivacyRefused:
            return PrivacyCost(honest=honest)
        return PrivacyCost(
            honest=honest, epsilon=total.epsilon, round_epsilon=self._round_epsilon, delta=total.delta
        )

    def account(self, rounds: int, planned: int, newest: PrivacyCost | None, beside: int | None) -> Account:
        """What is told of the run now.

        Args:
            rounds: how many were committed.
            planned: how many the run is to have.
            newest: what the newest version says.
            beside: honest participants of a sum that was opened and is in no version; None: there is none.
        """
        if beside is None:
            return Account(statement=self.describe(rounds, planned, newest))
        told = self.spent(rounds + 1, beside, newest)
        statement = self.describe(rounds + 1, max(planned, rounds + 1), told)
        return Account(
            beside=told, statement=f"{statement}; the sum of round {rounds + 1} counts: it was opened"
        )

    def describe(self, rounds: int, planned: int, newest: PrivacyCost | None) -> str:
        """One paragraph for people.

        Args:
            rounds: how many sums were opened.
            planned: how many the run is to have.
            newest: what the newest version says.
        """
        try:
            honest = self._plan.fewest_honest if rounds == 0 else (0 if newest is None else newest.honest)
            now, end = spent(self._plan, rounds, honest), spent(self._plan, planned, honest)
        except PrivacyRefused as error:
            return f"none: {error}"
        return f"{_figure(now)} after {rounds} rounds, {_figure(end)} after all {planned}; if " + "; ".join(
            now.assumptions
        )


class NoPrivacy:
    """The account of a run without differential privacy: nothing is added, nothing is shown."""

    def spent(self, rounds: int, honest: int, before: PrivacyCost | None) -> PrivacyCost | None:
        """Nothing, whatever was opened."""
        return None

    def account(self, rounds: int, planned: int, newest: PrivacyCost | None, beside: int | None) -> Account:
        """The empty account."""
        return Account()

    def describe(self, rounds: int, planned: int, newest: PrivacyCost | None) -> str:
        """An empty text."""
        return ""


def _figure(cost: PrivacySpent) -> str:
    return f"epsilon {cost.epsilon:.4g} at delta {cost.delta:g}"
