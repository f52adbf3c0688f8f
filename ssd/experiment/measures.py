"""`evaluation.measures`: calls of `ssd evaluate` on a final encoder, as a file words them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ssd.experiment.options import EVALUATE_OWN, accepted, arguments, command
from ssd.federation.plan import ENCODER

Json = Any
PROJECTOR, HEAD = "projector", "head"
_OURS = frozenset({"name", "data", "methods", HEAD})


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One call."""

    data: str
    """The data set that is measured on."""
    arguments: tuple[str, ...]
    """Options of `ssd evaluate`."""
    head: bool
    """The accuracy of the model's own classifier too."""
    methods: tuple[str, ...]
    """Labels of the methods it is for; empty: all."""

    def to_json(self) -> dict[str, Json]:
        """What a result keeps of it: everything that decides its numbers."""
        return {"data": self.data, "arguments": list(self.arguments)} | ({HEAD: True} if self.head else {})


def looks_at_z(how: Mapping[str, Json]) -> bool:
    """Whether a measure is (also) one of the projector's output."""
    return ("--features", "z") in pairwise(how["arguments"])


def parts_for(measures: Iterable[Mapping[str, Json]], config: Mapping[str, Json]) -> tuple[str, ...]:
    """Parts of the model that measures need: the encoder, and what a method of this configuration has besides."""
    parts = [ENCODER]
    wanted = list(measures)
    if any(map(looks_at_z, wanted)) and config.get(PROJECTOR, True):
        parts.append(PROJECTOR)
    if any(how.get(HEAD) for how in wanted):
        parts.append(HEAD)
    return tuple(parts)


def read_measures(tables: Sequence[Mapping[str, Json]], kind: str, mistakes: list[str]) -> dict[str, Measure]:
    """The measures of one setting by name; what is wrong goes to `mistakes`.

    Args:
        tables: options of `ssd evaluate` by name, and `name`, `data` (None: `kind`), `methods` (labels) and `head`
            (true: the classifier's accuracy too).
        kind: the data set that is trained on.
        mistakes: gets a sentence for everything that is wrong.
    """
    known = accepted(command("evaluate"), EVALUATE_OWN)
    found = {}
    for table in tables:
        name, data = str(table.get("name", "")), str(table.get("data", kind))
        where = f"evaluation.measures {name!r}"
        options = {key: value for key, value in table.items() if key not in _OURS}
        given, wrong = arguments(options, known, where)
        mistakes += wrong
        if data != "none":
            # A setting without images can only have methods that are not measured.
            mistakes += arguments({"data": data}, known, where)[1]
        found[name] = Measure(
            data=data,
            arguments=tuple(given),
            head=bool(table.get(HEAD, False)),
            methods=tuple(table.get("methods", ())),
        )
    return found
