"""Differential privacy in the coordinator: noise where it is the coordinator's to add, and the account of what rounds cost.

The account is kept in the versions: each has the epsilon of its round and of all rounds up to it, and how many honest
participants its sum held at least. The settings are fixed for the run, so what is stored is enough after any restart.
A sum that was opened and could not be committed is in the journal, and what is shown counts it.
No epsilon is stored or shown once a sum held fewer honest participants than the noise was made for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ssd.privacy.account import PrivacySpent, spent
from ssd.privacy.noise import NoisePlan, add_central_noise
from ssd.privacy.settings import NoisePlace, PrivacyRefused
from ssd.updates.fold import Fold

PREFIX = "privacy_"
"""What the names of these statistics of a version begin with."""
EPSILON, ROUND_EPSILON, DELTA, HONEST = (
    f"{PREFIX}{name}" for name in ("epsilon", "round_epsilon", "delta", "honest")
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """What all opened sums of a run cost."""

    statistics: Mapping[str, float] = field(default_factory=dict)
    """As versions have them; empty if there is nothing beside what the newest version says."""
    statement: str = ""
    """For people."""

    def beside(self, statistics: Mapping[str, float]) -> dict[str, float]:
        """The newest version's statistics, with what this account says of privacy in place of what they say.

        All of theirs go, also those this account does not have: an epsilon that is lost must not look as if it held.
        """
        if not self.statistics:
            return dict(statistics)
        others = {name: value for name, value in statistics.items() if not name.startswith(PREFIX)}
        return {**others, **self.statistics}


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

    def spent(self, rounds: int, honest: int, before: Mapping[str, float]) -> dict[str, float]:
        """What a version's statistics say: of its round, and of all up to it.

        Args:
            rounds: how many sums were opened, this one included.
            honest: participants of this sum that are not assumed corrupt.
            before: the statistics of the version before.
        """
        if rounds > 1:
            honest = min(honest, int(before.get(HONEST, 0)))
        told = {HONEST: float(honest)}
        try:
            total = spent(self._plan, rounds, honest)
        except PrivacyRefused:
            return told
        return told | {EPSILON: total.epsilon, ROUND_EPSILON: self._round_epsilon, DELTA: total.delta}

    def account(
        self, rounds: int, planned: int, statistics: Mapping[str, float], beside: int | None
    ) -> Account:
        """What is told of the run now.

        Args:
            rounds: how many were committed.
            planned: how many the run is to have.
            statistics: of the newest version.
            beside: honest participants of a sum that was opened and is in no version; None: there is none.
        """
        if beside is None:
            return Account(statement=self.describe(rounds, planned, statistics))
        told = self.spent(rounds + 1, beside, statistics)
        statement = self.describe(rounds + 1, max(planned, rounds + 1), told)
        return Account(
            statistics=told, statement=f"{statement}; the sum of round {rounds + 1} counts: it was opened"
        )

    def describe(self, rounds: int, planned: int, statistics: Mapping[str, float]) -> str:
        """One paragraph for people.

        Args:
            rounds: how many sums were opened.
            planned: how many the run is to have.
            statistics: of the newest version.
        """
        try:
            honest = self._plan.fewest_honest if rounds == 0 else int(statistics.get(HONEST, 0))
            now, end = spent(self._plan, rounds, honest), spent(self._plan, planned, honest)
        except PrivacyRefused as error:
            return f"none: {error}"
        return f"{_figure(now)} after {rounds} rounds, {_figure(end)} after all {planned}; if " + "; ".join(
            now.assumptions
        )


class NoPrivacy:
    """The account of a run without differential privacy: nothing is added, nothing is shown."""

    def spent(self, rounds: int, honest: int, before: Mapping[str, float]) -> dict[str, float]:
        """Nothing, whatever was opened."""
        return {}

    def account(
        self, rounds: int, planned: int, statistics: Mapping[str, float], beside: int | None
    ) -> Account:
        """The empty account."""
        return Account()

    def describe(self, rounds: int, planned: int, statistics: Mapping[str, float]) -> str:
        """An empty text."""
        return ""


def _figure(cost: PrivacySpent) -> str:
    return f"epsilon {cost.epsilon:.4g} at delta {cost.delta:g}"
