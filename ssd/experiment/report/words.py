"""How measures are called, and how their values are written."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ssd.experiment.report.results import BEST, EVALUATED
from ssd.experiment.report.statistics import Difference, Spread
from ssd.plots.table import Row, rows_of

MISSING = "missing"
"""Of a cell that is not finished."""
NONE = "-"
"""Of finished cells that have no such number."""
_COUNTS = re.compile(
    r".*(_samples|_std|_lr|_weight_decay|_epochs|_validation|_labels|_clients|_images)|labelled_samples_.*|client_sum_.*"
    r"|knn_k|fine_tune_epochs|clients|images"
)
"""What says how something was measured; in the raw numbers, not in the tables."""
_SHARES = re.compile(r".*(accuracy|linear_probe|knn|fine_tune).*")


def shown(measure: str) -> bool:
    """Whether a table has a row for it."""
    return _COUNTS.fullmatch(measure.rpartition("/")[2].removeprefix("z_")) is None


def row_of(measure: str) -> Row:
    """Words and format of `NAME/KEY`."""
    name, _, key = measure.rpartition("/")
    plain = key.removeprefix("z_")
    (row,) = rows_of({"": {plain: 0.0}}) or [
        Row(plain, plain.replace("_", " "), _SHARES.fullmatch(plain) is not None)
    ]
    words = row.words
    if row.percent and not words.endswith("%"):
        words += " %"
    if key != plain:
        words += " of z"
    if name == EVALUATED:
        words += ", last evaluation of the run"
    elif name == BEST:
        words += ", best evaluations of the run"
    elif name:
        words = f"{name}: {words}"
    return Row(measure, words, row.percent, row.digits)


def ordered(measures: Sequence[str]) -> list[str]:
    """Those with a row, in the order tables have them. Evaluations of the run come last, and only those that no final
    measure repeats.
    """
    final = {measure for measure in measures if not measure.startswith(f"{EVALUATED}/")}
    measures = [each for each in measures if each in final or each.partition("/")[2] not in final]
    usual = {row.key: number for number, row in enumerate(rows_of({"": _all_of(measures)}))}

    def place(measure: str) -> tuple[bool, int]:
        name, _, key = measure.rpartition("/")
        return name == EVALUATED, usual.get(key.removeprefix("z_"), len(usual))

    names = list(dict.fromkeys(measure.rpartition("/")[0] for measure in measures))
    by_name = sorted((measure for measure in measures if shown(measure)), key=place)
    return sorted(by_name, key=lambda measure: names.index(measure.rpartition("/")[0]))


def _all_of(measures: Sequence[str]) -> dict[str, float]:
    return {measure.rpartition("/")[2].removeprefix("z_"): 0.0 for measure in measures}


def value(number: float, row: Row, *, sign: bool = False) -> str:
    """A number as its row writes it."""
    scaled, digits = (100 * number, 2) if row.percent else (number, row.digits)
    return f"{scaled:{'+' if sign else ''}.{digits}f}"


def spread_words(found: Spread | None, row: Row, planned: int, absent: str = MISSING) -> str:
    """`61.20 ± 0.80`, with the number of seeds if some are missing; `absent` without any."""
    if found is None:
        return absent
    text = value(found.mean, row)
    if found.deviation is not None:
        text += f" ± {value(found.deviation, row)}"
    return text if found.count == planned else f"{text} ({found.count} of {planned} seeds)"


def difference_words(found: Difference | None, row: Row, absent: str = MISSING) -> str:
    """`+1.20 [+0.40, +2.00], n = 5`; `absent` where nothing can be compared."""
    if found is None:
        return absent
    text = value(found.mean, row, sign=True)
    if found.interval is None:
        return f"{text}, n = 1, no interval"
    low, high = (value(end, row, sign=True) for end in found.interval)
    return f"{text} [{low}, {high}], n = {found.count}"
