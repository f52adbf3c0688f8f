"""What a coordinator is told of a failure: a reason out of this list, and the sentence that belongs to the reason.

What really happened is a sentence for this worker's own operator. It may hold names of files, folders and classes, and
numbers of images, so it goes into this worker's log and nowhere else. Who writes such a sentence need not know that:
nothing but this table is ever sent.
"""

from __future__ import annotations

from collections.abc import Mapping

from ssd.secagg.protocol.errors import AbortReason
from ssd_wire.reasons import OTHER, task_failure

SEE_LOG = "the worker's own log says more"
SENTENCES: Mapping[str, str] = {
    OTHER: "the work failed",
    "bad_measures": "the method's measures cannot be added up",
    "client_not_hosted": "this worker does not host the client",
    "data_missing": "images are missing, too few, or cannot be used",
    "declaration_differs": "the method declares something else here: run the same program version on coordinator and workers",
    "declaration_unreadable": "the declaration of the run cannot be read or used",
    "device_fault": "the device failed",
    "malformed": "the update is not well formed",
    "method_unavailable": "the method cannot be built here; a method that is not built in has to be named in [methods]",
    "model_unavailable": "the model version cannot be had or does not fit",
    "not_agreed": "this worker does not agree to the run's method, settings or task under secure aggregation",
    "not_finite": "the update has values that are not finite",
    "out_of_memory": "there is not enough memory",
    "over_bound": "the update has values over their bound",
    "over_norm": "the update is longer than its norm bound",
    "round_over": "the masked upload of the attempt is no longer possible",
    "state_unreadable": "the client's state cannot be read",
    "statistic_out_of_range": "a statistic is out of its range",
    "storage": "the worker's storage failed",
    "training_diverged": "training made values that are not finite",
    "training_failed": "training failed",
    "training_process_died": "the training process died",
    "weight_out_of_range": "the client's weight is out of the allowed range",
    "wrong_length": "the update has another length than the run's",
}


def public(reason: str) -> tuple[str, str]:
    """The reason and the sentence that may be sent for it; a reason that nobody listed becomes `OTHER`."""
    known = task_failure(reason)
    return known, f"{SENTENCES[known]}; {SEE_LOG}"


def public_refusal(reason: AbortReason) -> str:
    """The sentence that goes with a refusal of secure aggregation, whose reasons are a list of their own."""
    return f"refused as {reason.value}; {SEE_LOG}"
