"""What an evaluator's answer may hold, and what several answers about one version come to. Pure decisions.

An evaluator is believed about its own probe data, not about how much room its answer takes: names, their number and
their values have limits. Where several measured a version, the middle value of each measure is kept, so that no single
one decides, and measures they do not agree on are named.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low

from ssd.evaluation.client_measures import MOST_ABSOLUTE, BadMeasures, is_client_measure

MOST_MEASURES = 64
"""Of one answer; the built-in methods have about twenty."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.@/:+-]{0,127}")
_SHARE = re.compile(r"(\w+_)?accuracy|(test_)?(linear_probe|knn)_(all|paper|\d+_per_class)")
"""Measures that are a share of the test images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreed:
    """What several answers come to."""

    values: Mapping[str, float]
    disputed: tuple[str, ...] = ()
    """Measures whose values lie further apart than is allowed, or that a part of the answers lacks."""


def checked(values: Mapping[str, float]) -> dict[str, float]:
    """The measures that are kept of one answer; what is not finite, or belongs to the clients' own, is left out.

    Raises:
        BadMeasures: too many measures, a name that is none, or a value that its measure cannot have.
    """
    if len(values) > MOST_MEASURES:
        raise BadMeasures(f"{len(values)} measures, at most {MOST_MEASURES} are taken")
    kept = {}
    for name, value in values.items():
        if not _NAME.fullmatch(name):
            raise BadMeasures("a measure has a name that is none")
        if not math.isfinite(value) or is_client_measure(name):
            continue
        if abs(value) > MOST_ABSOLUTE:
            raise BadMeasures(f"{name} is {value:g}")
        if _SHARE.fullmatch(name) and not 0 <= value <= 1:
            raise BadMeasures(f"{name} is {value:g}, and a share lies between 0 and 1")
        kept[name] = value
    return kept


def agreed(answers: Sequence[Mapping[str, float]], tolerance: float) -> Agreed:
    """The lower median of every measure that more than half of the answers have.

    Args:
        answers: the checked measures of one version, from one evaluator each.
        tolerance: how far apart the values of a measure may lie: so much for measures up to 1, and so large a share of
            the median for larger ones.
    """
    values, disputed = {}, []
    for name in sorted({name for answer in answers for name in answer}):
        found = [answer[name] for answer in answers if name in answer]
        middle = median_low(found)
        if 2 * len(found) > len(answers):
            values[name] = middle
        if len(found) < len(answers) or max(found) - min(found) > tolerance * max(1.0, abs(middle)):
            disputed.append(name)
    return Agreed(values=values, disputed=tuple(disputed))
