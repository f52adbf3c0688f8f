"""Why a run cannot be created: what its method asks for and its settings do not allow."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.config.sections import SecureAggregationSection
from coordinator.core.policy import Mode
from ssd.privacy import settings as privacy_settings
from ssd.secagg.admission.declaration_checks import steerable_settings
from ssd.secagg.protocol.graph import COMPLETE_UP_TO as LARGEST
from ssd.secagg.protocol.graph import PPM, InfeasibleGraph, dropouts, threshold_complete
from ssd.updates.declaration import Declaration


def obstacles(
    declaration: Declaration, mode: Mode, secure_aggregation: str, *, private: bool = False
) -> Iterator[str]:
    """One sentence for each, with what to do about it; none if the run can be created.

    Args:
        declaration: the method's.
        mode: `run.mode`.
        secure_aggregation: `secure_aggregation.level`.
        private: whether `privacy.mechanism` is another than off.
    """
    scaling = declaration.scaling
    if scaling is not None and scaling.assignment == "position" and mode is not Mode.REPRODUCIBLE:
        yield (
            "scaling vectors by position in the sample need a sample that every attempt at a round shares: set"
            " run.mode = reproducible, or give vectors to clients (assignment = client)"
        )
    if private:
        for found in privacy_settings.obstacles(declaration):
            yield f"privacy.mechanism: {found}"
    if secure_aggregation == "off":
        return
    if declaration.collects:
        names = [f"group {group.name!r}" for group in declaration.groups if group.collect]
        names += [f"statistic {each.name!r}" for each in declaration.statistics if each.collect]
        yield (
            f"method {declaration.method} looks at single clients' values ({', '.join(names)}), which secure"
            " aggregation never shows: set secure_aggregation.level = off, or choose another method"
        )
    for found in steerable_settings(declaration):
        yield (
            f"method {declaration.method}: {found}, so a coordinator could make everybody but one client count for nothing"
            " in a masked sum: change that setting, or set secure_aggregation.level = off"
        )


def cautions(secure: SecureAggregationSection, mode: Mode, invited: int, *, private: bool) -> Iterator[str]:
    """What a run under secure aggregation does not do with these settings, a sentence each; said at every start.

    Args:
        secure: the section; of level `off` nothing is said.
        mode: `run.mode`.
        invited: the most clients, and so the most workers, that a round has.
        private: whether `privacy.mechanism` is another than off.
    """
    if secure.level == "off":
        return
    if mode is Mode.ELASTIC and not private:
        yield (
            "the cohorts of an elastic run change, and the difference of two sums whose participants differ by one is that"
            " one's update, as nearly as the model stood still: set privacy.mechanism = distributed, or"
            " run.mode = reproducible; workers can set min_set_change"
        )
    gamma, delta = round(secure.assumed_corrupt * PPM), round(secure.tolerated_dropout * PPM)
    sizes = range(secure.min_participants, min(invited, LARGEST) + 1)
    works = [n for n in sizes if can_open(n, gamma, delta, secure.level)]
    alive = [n for n in works if dropouts(n, delta)]
    if not works:
        yield (
            f"no number of workers up to {invited} can open a sum with assumed_corrupt = {secure.assumed_corrupt:g} and"
            f" tolerated_dropout = {secure.tolerated_dropout:g}: lower one of them, or raise round.cohort_size"
        )
    elif delta and not alive:
        yield (
            f"with up to {invited} workers no dropout is survived, for all that tolerated_dropout ="
            f" {secure.tolerated_dropout:g}: one dead worker costs the attempt. {_more_alive(delta)}"
        )
    elif delta and alive[0] > works[0]:
        yield (
            f"a dropout is survived from {alive[0]} workers on; with fewer, one dead worker costs the attempt."
            f" {_more_alive(delta)}"
        )


def can_open(n: int, gamma_ppm: int, delta_ppm: int, level: str) -> bool:
    """Whether so many workers have a threshold that is safe and alive."""
    try:
        threshold_complete(n, gamma_ppm, delta_ppm, level)
    except InfeasibleGraph:
        return False
    return True


def _more_alive(delta_ppm: int) -> str:
    return (
        "Raise tolerated_dropout to 1 / the number of workers; three workers survive one only with assumed_corrupt = 0,"
        " because the sum of two, one of them corrupt, lays the other open"
        if delta_ppm < PPM // 2
        else ""
    )
