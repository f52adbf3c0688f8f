"""The final measures of a cell: calls of `ssd evaluate` on its encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ssd.experiment.measures import HEAD, PROJECTOR, looks_at_z
from ssd.federation.children import Children
from ssd.federation.plan import ENCODER
from ssd.federation.records import DaemonFailed

Json = Any


def partition_arguments(
    kind: str, root: str | None, options: list[str], clients: int, seed: int, out: Path
) -> list[str]:
    """`ssd partition make` for a cell."""
    where = [] if root is None else ["--root", root]
    fixed = ["--data", kind, "--clients", str(clients), "--seed", str(seed), "--out", str(out), "--force"]
    return ["-m", "ssd", "partition", "make", *fixed, *where, *options]


def measure_arguments(
    how: Mapping[str, Json],
    folder: Path,
    parts: Sequence[str],
    partition: Path | None,
    root: str | None,
    *,
    seed: int,
    threads: int,
    device: str,
    stand_in: str | None = None,
) -> list[str]:
    """`ssd evaluate` for one measure; an option that `how` names itself comes last and wins.

    Without a projector z is h, so measures of z are left out.

    Args:
        how: from `Measure.to_json`.
        folder: where the model's parts are.
        parts: those the cell takes out of its model.
        partition: whose the images are; None for other images than those that were trained on.
        root: where the data set's files are.
        seed: of draws and views.
        threads: of the CPU.
        device: to compute on.
        stand_in: measure this in the encoder's place, `chance` or `raw-pixels`.

    Raises:
        DaemonFailed: a part it needs was not taken out when training ended.
    """
    needed, asked = [ENCODER], list(how["arguments"])
    if looks_at_z(how) and PROJECTOR in parts:
        needed.append(PROJECTOR)
    elif looks_at_z(how):
        position = list(pairwise(asked)).index(("--features", "z"))
        del asked[position : position + 2]
    if how.get(HEAD):
        needed.append(HEAD)
    files = {part: folder / f"{part}.safetensors" for part in needed}
    for part, path in files.items():
        if not path.exists():
            raise DaemonFailed(
                f"there is no {path}: the cell was trained without taking its {part} out; remove its folder to train "
                "it again"
            )
    fixed = ["--data", how["data"], "--seed", str(seed), "--threads", str(threads), "--device", device]
    given = [] if root is None else ["--root", root]
    # What stands beside a figure has rows of its own here, measured once and not with every cell.
    given += ["--no-beside"] if stand_in is None else ["--as", stand_in]
    given += [] if partition is None else ["--partition", str(partition)]
    given += [text for part in needed[1:] for text in (f"--{part}", str(files[part]))]
    return ["-m", "ssd", "evaluate", str(files[ENCODER]), "--format", "json", *fixed, *given, *asked]


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
