"""The final measures of a cell: calls of `ssd evaluate` on its encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ssd.federating.children import Children
from ssd.federating.records import DaemonFailed

Json = Any


def partition_arguments(
    kind: str, root: str | None, options: list[str], clients: int, seed: int, out: Path
) -> list[str]:
    """`ssd partition make` for a cell."""
    where = [] if root is None else ["--root", root]
    fixed = ["--data", kind, "--clients", str(clients), "--seed", str(seed), "--out", str(out), "--force"]
    return ["-m", "ssd", "partition", "make", *fixed, *where, *options]


def looks_at_z(how: Mapping[str, Json]) -> bool:
    """Whether a measure is (also) one of the projector's output."""
    return ("--features", "z") in pairwise(how["arguments"])


def has_projector(config: Mapping[str, Json]) -> bool:
    """Whether a method's configuration says of z that there is such a thing beside h."""
    return bool(config.get("projector", True))


def measure_arguments(
    how: Mapping[str, Json],
    encoder: Path,
    projector: Path | None,
    partition: Path | None,
    root: str | None,
    seed: int,
    device: str,
) -> list[str]:
    """`ssd evaluate` for one measure. An option that `how` names itself comes last and wins.

    Without a projector z is h, so what is said of z is left out.
    """
    where = [] if root is None else ["--root", root]
    whose = [] if partition is None else ["--partition", str(partition)]
    if looks_at_z(how):
        if projector is None:
            how = {**how, "arguments": _without_z(how["arguments"])}
        else:
            whose += ["--projector", str(projector)]
    fixed = ["--data", how["data"], "--seed", str(seed), "--device", device, "--format", "json"]
    return ["-m", "ssd", "evaluate", str(encoder), *fixed, *where, *whose, *how["arguments"]]


def _without_z(given: Sequence[str]) -> list[str]:
    kept = list(given)
    position = next(i for i, pair in enumerate(pairwise(kept)) if pair == ("--features", "z"))
    del kept[position : position + 2]
    return kept


def answer(children: Children, name: str, arguments: list[str], folder: Path) -> str:
    """What `python ARGUMENTS` prints; its complaints are kept in a log in `folder`.

    Raises:
        DaemonFailed: it ended with another exit code than 0.
    """
    log, out = folder / f"{name}.log", folder / f"{name}.out"
    out.unlink(missing_ok=True)
    child = children.start(name, arguments, log, output=out)
    code = child.process.wait()
    if code != 0:
        raise DaemonFailed(f"{name} ended with exit code {code}", log=log, lines=child.tail())
    text = out.read_text(encoding="utf-8")
    out.unlink()
    return text


def measured(children: Children, name: str, arguments: list[str], folder: Path) -> dict[str, float]:
    """The numbers of one measure."""
    text = answer(children, f"measure-{name}" if name else "measure", arguments, folder)
    values: dict[str, float] = json.loads(text)["measures"]
    return values
