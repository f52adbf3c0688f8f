"""How much a method could gain at all in a setting: the room between its base and the reference rows.

No method against unevenness can be expected to do more than take the damage of unevenness back. So the room of a measure
is what the base reaches more with its images dealt evenly, or with all in one place, whichever is more. Where that is no
more than a claim's threshold, or where no row that trains beats chance, raw pixels and the untrained encoder, the claim
cannot be judged: "undecided" is certain before the run and says nothing about the method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from ssd.experiment.references import FLOORS, REFERENCES, TRAINED, title
from ssd.experiment.report.results import Results
from ssd.experiment.report.statistics import Difference, paired
from ssd.experiment.report.words import difference_words, row_of, value
from ssd.experiment.settings import ClaimTable

_LARGER = ("uniformity", "effective_rank")
_SMALLER = ("alignment",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """Of one measure in one setting. Differences are in the direction in which the measure is better."""

    setting: str
    measure: str
    base: float
    """The base's mean over seeds."""
    ceiling: str
    """Label of the better of the reference rows that train."""
    gain: Difference
    """Ceiling over base, seed by seed."""
    floor: str | None
    """Label of the best row without training; None where the measure is no accuracy."""
    margin: Difference | None
    """Ceiling over floor."""

    def enough(self, threshold: float) -> bool:
        """Whether a gain over `threshold` could show."""
        return self.gain.mean > threshold and (self.margin is None or self.margin.mean > 0.0)


def side(measure: str) -> int | None:
    """1 if more of a measure is better, -1 if less; None where neither is known."""
    key = measure.rpartition("/")[2]
    if row_of(measure).percent or any(word in key for word in _LARGER):
        return 1
    return -1 if any(word in key for word in _SMALLER) else None


def room_of(results: Results, setting: str, measure: str) -> Room | None:
    """The room of a measure; None while a row for it is missing, or if nobody can say what is better."""
    sign = side(measure)
    base = results.values(setting, results.base, measure)
    planned = set(results.seeds(setting, results.base))
    if sign is None or not planned or set(base) != planned:
        return None

    def better(label: str, other: Mapping[int, float]) -> Difference | None:
        found = results.values(setting, label, measure)
        return (
            paired(_signed(found, sign), _signed(other, sign))
            if planned <= found.keys() and planned <= other.keys()
            else None
        )

    ceilings = {label: each for label in TRAINED if (each := better(label, base)) is not None}
    if not ceilings:
        return None
    ceiling = max(ceilings, key=lambda label: ceilings[label].mean)
    floor, margin = None, None
    if row_of(measure).percent:
        reached = results.values(setting, ceiling, measure)
        margins = {
            label: each
            for label in FLOORS
            if (found := results.values(setting, label, measure)).keys() >= planned
            and (each := paired(reached, found)) is not None
        }
        floor = min(margins, key=lambda label: margins[label].mean, default=None)
        margin = None if floor is None else margins[floor]
    return Room(
        setting=setting,
        measure=measure,
        base=fmean(base.values()),
        ceiling=ceiling,
        gain=ceilings[ceiling],
        floor=floor,
        margin=margin,
    )


def _signed(values: Mapping[int, float], sign: int) -> dict[int, float]:
    return {seed: sign * each for seed, each in values.items()}


def room_for(results: Results, claim: ClaimTable, setting: str) -> Room | None:
    """The room of a claim in a setting; None if it claims no gain of a method, or while nobody can tell.

    A claim that something costs, or costs no more than so much, needs no room; neither does one about a reference row.
    """
    gains = {1: "above", -1: "below"}.get(side(claim.measure) or 0)
    if claim.direction != gains or _threshold(claim) < 0.0 or claim.method in REFERENCES:
        return None
    return room_of(results, setting, claim.measure)


def without_room(results: Results) -> list[tuple[ClaimTable, Room]]:
    """The claims that cannot be judged, each with the room that is too small."""
    found = []
    for claim in results.experiment.claims:
        for setting in results.experiment.settings:
            there = results.columns(setting.name)
            if claim.setting not in (None, setting.name) or not {claim.method, claim.against} <= {*there}:
                continue
            room = room_for(results, claim, setting.name)
            if room is not None and not room.enough(_threshold(claim)):
                found.append((claim, room))
    return found


def _threshold(claim: ClaimTable) -> float:
    return claim.threshold * (side(claim.measure) or 1)


def claimed_rooms(results: Results, setting: str) -> list[Room]:
    """The room of every measure that somebody claims a gain in; without claims, of every final accuracy."""
    claims = [each for each in results.experiment.claims if each.setting in (None, setting)]
    names = [each.measure for each in claims if room_for(results, each, setting) is not None]
    if not results.experiment.claims:
        names = [
            each for each in results.measures(setting) if row_of(each).percent and not each.endswith("_std")
        ]
    found = (room_of(results, setting, name) for name in dict.fromkeys(names))
    return [room for room in found if room is not None]


def room_words(room: Room, base: str) -> str:
    """One sentence about a room.

    Args:
        room: the room.
        base: the base's title.
    """
    row = row_of(room.measure)
    text = (
        f"{room.setting}, {row.words}: {base} {value(room.base, row)}; {title(room.ceiling, base)}: "
        f"{difference_words(room.gain, row)}"
    )
    if room.floor is not None and room.margin is not None:
        text += f", and {value(room.margin.mean, row, sign=True)} over {title(room.floor, base).lower()}"
    return f"{text}. {judgement(room)}"


def judgement(room: Room) -> str:
    """What a room says about claims of a gain over nothing."""
    if not room.enough(0.0):
        return "There is no room: no method can be told from its base here."
    if room.gain.interval is None or room.gain.interval[0] <= 0.0:
        return "There may be room: it cannot be told from noise."
    return "There is room."
