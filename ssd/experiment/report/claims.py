"""Verdicts on claims that were written down before the runs.

The rule: take the paired differences (method − against) over all seeds of the experiment and the 95 % interval of
their mean (t-distribution). The claim *holds* if the whole interval lies on the claimed side of the threshold, it
*fails* if the whole interval lies on the other side, and otherwise it is *undecided*. It is also undecided while
cells are missing, because stopping at a convenient moment is no test, and with one seed, which has no interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ssd.experiment.report.results import Results
from ssd.experiment.report.room import Room, room_for
from ssd.experiment.report.statistics import Difference, blocked, paired
from ssd.experiment.settings import ClaimTable

RULE = (
    "A claim *holds* if the whole 95 % interval of the paired differences lies on the claimed side of the threshold, "
    "*fails* if it lies wholly on the other side, and is *undecided* otherwise, or while cells are missing."
)
Word = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What one setting says about a claim."""

    claim: ClaimTable
    setting: str
    word: Word
    difference: Difference | None
    """None while nothing can be compared."""
    planned: int
    """Seeds there will be."""
    pooled: Difference | None = None
    """The difference with an error shared by all methods of the setting (`blocked`)."""
    room: Room | None = None
    """How much could be gained at all; None if no gain is claimed, or nobody can tell."""

    @property
    def certain(self) -> bool:
        """Whether it was clear before the run that nothing can be decided."""
        return self.room is not None and not self.room.enough(
            self.claim.threshold if self.claim.direction == "above" else -self.claim.threshold
        )


def judge(difference: Difference | None, direction: str, threshold: float, planned: int) -> Word:
    """The rule at the top of this module.

    Args:
        difference: method minus against.
        direction: `above` or `below`, the side of the threshold that is claimed.
        threshold: where the sides meet; an interval that touches it decides nothing.
        planned: seeds there will be.
    """
    if difference is None or difference.interval is None or difference.count < planned:
        return "undecided"
    low, high = difference.interval
    above, below = low > threshold, high < threshold
    claimed, other = (above, below) if direction == "above" else (below, above)
    return "holds" if claimed else "fails" if other else "undecided"


def verdicts(results: Results) -> list[Verdict]:
    """Every claim in every setting it is about."""
    found = []
    for claim in results.experiment.claims:
        for setting in results.experiment.settings:
            there = results.columns(setting.name)
            if claim.setting not in (None, setting.name) or not {claim.method, claim.against} <= {*there}:
                continue
            difference = paired(
                results.values(setting.name, claim.method, claim.measure),
                results.values(setting.name, claim.against, claim.measure),
            )
            planned = len(results.seeds(setting.name, claim.method))
            word = judge(difference, claim.direction, claim.threshold, planned)
            # Reference rows have errors of other sizes: chance has none.
            rows = dict.fromkeys([*results.methods(setting.name), claim.method, claim.against])
            pooled = blocked(
                {label: results.values(setting.name, label, claim.measure) for label in rows},
                claim.method,
                claim.against,
            )
            found.append(
                Verdict(
                    claim=claim,
                    setting=setting.name,
                    word=word,
                    difference=difference,
                    planned=planned,
                    pooled=pooled,
                    room=room_for(results, claim, setting.name),
                )
            )
    return found
