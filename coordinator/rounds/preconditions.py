"""Why a run cannot be created: what its method asks for and its settings do not allow."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.core.policy import Mode
from ssd.privacy import settings as privacy_settings
from ssd.secagg.admission.declaration_checks import steerable_settings
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
