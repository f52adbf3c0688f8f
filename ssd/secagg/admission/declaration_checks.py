"""Whether a method, with its settings, can be part of a masked sum at all.

A sum hides who said what only while everybody's part in it is of the same kind. A setting because of which one client's
part can be made much larger than all others', by whoever decides whose visits count or who gets which scaling vector,
turns the sum into that client's update. Such a setting is no lie that a digest could show: everybody is told the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from ssd.secagg.protocol.checks import refuse_unless
from ssd.secagg.protocol.errors import AbortReason
from ssd.updates.declaration import Declaration

_WHY: Mapping[str, str] = {
    "lr_lag": "lr_lag trains each client at the rate of its last visit",
    "resumes": "each client goes on from a model of its own",
    "start": 'start = "own" lets each client go on from a model of its own',
}


def steerable_settings(declaration: Declaration) -> tuple[str, ...]:
    """What about the method lets its coordinator choose whose part of a sum is large, a clause each; empty: nothing."""
    found = [
        _WHY.get(name, f"{name} makes training depend on a client's own record")
        for name in declaration.steerable
    ]
    if declaration.scaling is not None and declaration.scaling.assignment == "position":
        found.append('assignment = "position" gives a client other dimensions in every round')
    return tuple(found)


def check_declaration(declaration: Declaration) -> None:
    """Whether nothing but the sum of the clients' values is looked at, and none of them can be singled out.

    Raises:
        ssd.secagg.protocol.errors.Refused: not so.
    """
    refuse_unless(
        not declaration.collects,
        AbortReason.STEERABLE_SETTING,
        f"method {declaration.method} looks at single clients' values",
    )
    found = steerable_settings(declaration)
    refuse_unless(
        not found, AbortReason.STEERABLE_SETTING, f"method {declaration.method}: {'; '.join(found)}"
    )
