"""Words of workers that a coordinator takes from a list or by a form, so that nobody can say anything with them."""

from __future__ import annotations

import re
from collections.abc import Mapping

OTHER = "failed"
"""For a reason that is not in the list."""
TASK_FAILURES = frozenset(
    {
        OTHER, "bad_measures", "client_not_hosted", "data_missing", "declaration_differs", "declaration_unreadable",
        "device_fault", "malformed", "method_unavailable", "model_unavailable", "not_agreed", "not_finite", "out_of_memory",
        "over_bound", "over_norm", "round_over", "state_unreadable", "statistic_out_of_range", "storage",
        "training_diverged", "training_failed", "training_process_died", "weight_out_of_range", "wrong_length",
    }
)  # fmt: skip
"""Why a client's task failed at its worker."""
_MEASURE = re.compile(r"[A-Za-z0-9_.@/:+-]{1,128}")


def task_failure(reason: str) -> str:
    """The reason, or `OTHER`."""
    return reason if reason in TASK_FAILURES else OTHER


def named_well(values: Mapping[str, float]) -> dict[str, float]:
    """The measures whose names are made of letters, digits and `_.@/:+-`, at most 128 of them."""
    return {name: value for name, value in values.items() if _MEASURE.fullmatch(name)}
