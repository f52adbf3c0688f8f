"""Turns measures on each client's own test images into numbers about the federation. Imports no torch.

A method returns additive numbers per client (`ssd.method.protocol.EvaluatesClients`). A worker adds them up over its
clients (`add_client`), the coordinator adds up the workers' sums and describes them (`describe`). Only sums travel:
what one client measured is seen by nobody unless its worker hosts it alone.

By convention `correct` out of `images` make a client's accuracy. Of it the sum and the sum of squares are kept too, for
the mean and the spread over clients, in which a client with ten images counts as much as one with a thousand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

CLIENTS, WITH_ACCURACY = "clients", "clients_with_accuracy"
ACCURACY_SUM, ACCURACY_SQUARES = "accuracy_sum", "accuracy_squares"
CORRECT, IMAGES = "correct", "images"
RESERVED = frozenset({CLIENTS, WITH_ACCURACY, ACCURACY_SUM, ACCURACY_SQUARES})
PREFIX = "client_sum_"
MOST_NAMES = 64
MOST_ABSOLUTE = 1e15
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class BadMeasures(ValueError):
    """The numbers of a client, or the sums of a worker, cannot be what they are called."""


def add_client(sums: Mapping[str, float], measured: Mapping[str, float]) -> dict[str, float]:
    """The sums with one more client in them.

    Raises:
        BadMeasures: a number is not finite, takes a name of ours, or `correct` is not within 0 .. `images`.
    """
    values = {name: float(value) for name, value in measured.items()}
    for name, value in values.items():
        if name in RESERVED:
            raise BadMeasures(f"a method cannot measure {name!r}: the sums over clients use the name")
        if not math.isfinite(value):
            raise BadMeasures(f"{name} is {value}")
    values[CLIENTS] = 1.0
    if (CORRECT in values) != (IMAGES in values):
        raise BadMeasures("`correct` and `images` come together")
    if CORRECT in values:
        if not 0 <= values[CORRECT] <= values[IMAGES] or values[IMAGES] == 0:
            raise BadMeasures(f"{values[CORRECT]:g} correct of {values[IMAGES]:g} images")
        accuracy = values[CORRECT] / values[IMAGES]
        values[WITH_ACCURACY] = 1.0
        values[ACCURACY_SUM], values[ACCURACY_SQUARES] = accuracy, accuracy * accuracy
    return add(sums, values)


def add(left: Mapping[str, float], right: Mapping[str, float]) -> dict[str, float]:
    """The sums by name; a missing name counts as zero."""
    return {name: left.get(name, 0.0) + right.get(name, 0.0) for name in sorted({*left, *right})}


def check(sums: Mapping[str, float], clients: int) -> None:
    """Refuse sums that `clients` clients cannot have.

    Raises:
        BadMeasures: too many, badly named, huge or not finite, of another number of clients, or accuracies that are
            incomplete or outside of 0 to 1.
    """
    if len(sums) > MOST_NAMES:
        raise BadMeasures(f"{len(sums)} sums, at most {MOST_NAMES} are taken")
    for name, value in sums.items():
        if not _NAME.fullmatch(name):
            raise BadMeasures(f"{name[:80]!r} is no name of a measure")
        if not abs(value) <= MOST_ABSOLUTE:
            raise BadMeasures(f"{name} is {value}")
    if sums.get(CLIENTS) != clients:
        raise BadMeasures(f"sums over {sums.get(CLIENTS, 0):g} clients, but {clients} are named")
    accuracy = {WITH_ACCURACY, ACCURACY_SUM, ACCURACY_SQUARES, CORRECT, IMAGES}
    if accuracy & set(sums) and not (accuracy <= set(sums) and sums[IMAGES] > 0 and sums[WITH_ACCURACY] >= 1):
        raise BadMeasures(f"accuracies are {', '.join(sorted(accuracy))} together, of one image at least")
    for total, limit in (
        (WITH_ACCURACY, clients),
        (ACCURACY_SUM, sums.get(WITH_ACCURACY, 0.0)),
        (ACCURACY_SQUARES, sums.get(WITH_ACCURACY, 0.0)),
        (CORRECT, sums.get(IMAGES, 0.0)),
    ):
        if not 0 <= sums.get(total, 0.0) <= limit:
            raise BadMeasures(f"{total} is {sums[total]:g}, at most {limit:g} is possible")


def known(sums: Mapping[str, float], more: Mapping[str, float]) -> dict[str, float]:
    """The part of `more` that fits beside `sums`: what every method has, and other names while there are few.

    Each worker's sums are limited by `check`; the sums of many, each with names of its own, would not be.
    """
    ours = RESERVED | {CORRECT, IMAGES}
    room = max(0, MOST_NAMES - len(set(sums) - ours))
    fresh = set(sorted(set(more) - ours - set(sums))[:room])
    return {name: value for name, value in more.items() if name in ours or name in sums or name in fresh}


def describe(sums: Mapping[str, float]) -> dict[str, float]:
    """The measures of a version.

    `personalised_clients`: how many clients were measured; with accuracies also `personalised_accuracy`, the mean
    of those that have one, `personalised_accuracy_std`, their standard deviation (of the population, not of a sample), and
    `pooled_client_accuracy`, correct out of all images. Whatever else a method returned keeps its sum, as
    `client_sum_<name>`.
    """
    out = {"personalised_clients": sums[CLIENTS]}
    if ACCURACY_SUM in sums:
        count = sums[WITH_ACCURACY]
        mean = sums[ACCURACY_SUM] / count
        variance = sums[ACCURACY_SQUARES] / count - mean * mean
        out["personalised_accuracy"] = mean
        out["personalised_accuracy_std"] = math.sqrt(max(0.0, variance))
        out["pooled_client_accuracy"] = sums[CORRECT] / sums[IMAGES]
    others = set(sums) - RESERVED - {CORRECT, IMAGES}
    return out | {f"{PREFIX}{name}": sums[name] for name in sorted(others)}


def is_client_measure(name: str) -> bool:
    """Whether a value of an evaluation record comes from `describe`."""
    return name.startswith(("personalised_", "pooled_client_", PREFIX))
