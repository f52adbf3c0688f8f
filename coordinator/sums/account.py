"""What the run's sums cost in privacy: the account of the versions, and of a sum that is in none of them yet."""

from __future__ import annotations

from coordinator.ports.figures import PrivacyCost
from coordinator.ports.run import Run
from coordinator.sums.round_sum import RoundSum
from coordinator.versions.catalogue import Catalogue
from coordinator.versions.privacy import Account, NoPrivacy, Privacy


class PrivacyAccount:
    """The account of one run; without differential privacy it is empty.

    Args:
        privacy: the run's noise and its costs.
        run: for the rounds that are planned.
        catalogue: the versions, each of which keeps what the rounds up to it cost.
        round_sum: for a sum that was opened and is in no version yet.
    """

    def __init__(
        self, privacy: Privacy | NoPrivacy, run: Run, catalogue: Catalogue, round_sum: RoundSum
    ) -> None:
        self._privacy = privacy
        self._run = run
        self._catalogue = catalogue
        self._sum = round_sum
        self._shown: tuple[tuple[int, int, int | None], Account] | None = None
        """The account shown last and what it was made from: status displays ask again and again."""

    def now(self) -> Account:
        """What all sums opened so far cost, one that is in no version included."""
        newest, rounds = self._catalogue.newest, self._run.state.policy.rounds
        beside = self._sum.honest_opened(self._run.state)
        key = (newest.number, rounds, beside)
        if self._shown is None or self._shown[0] != key:
            self._shown = (key, self._privacy.account(newest.number, rounds, newest.figures.privacy, beside))
        return self._shown[1]

    def cost_of(self, round_number: int) -> PrivacyCost | None:
        """What the version that this round is about to make says of privacy. Slow: not for the event loop."""
        honest = 1 if self._sum.level == "off" else (self._sum.honest_opened(self._run.state) or 0)
        return self._privacy.spent(round_number, honest, self._catalogue.newest.figures.privacy)

    def describe(self, number: int, cost: PrivacyCost | None) -> str:
        """One paragraph for people about the rounds up to version `number`; empty without differential privacy."""
        if number == self._catalogue.newest.number:
            return self.now().statement
        return self._privacy.describe(number, self._run.state.policy.rounds, cost)
