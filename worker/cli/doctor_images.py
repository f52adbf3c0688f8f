"""A client's folder of images: there, readable, how many, and the first that is broken."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssd.daemon.doctor.findings import Finding, fault, ok, warning
from ssd.data.images.decode import EXTENSIONS, MAX_PIXELS, RefusedImageError, measure


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderFacts:
    """What was seen of a folder, as far as time allowed."""

    client: str
    folder: Path
    problem: str = ""
    """Why it cannot be read; empty: it can."""
    images: int = 0
    """Files that are named like images."""
    counted_all: bool = True
    checked: int = 0
    """Of them, how many were decoded."""
    broken: tuple[str, ...] = ()
    """The first ones that cannot be used, each with its reason."""


def gather_folder(client: str, folder: Path, patience: float, max_pixels: int = MAX_PIXELS) -> FolderFacts:
    """Counts the images and decodes as many as fit into the time.

    Args:
        client: whose.
        folder: where.
        patience: seconds; half of it for counting.
        max_pixels: larger images count as broken.
    """
    try:
        with os.scandir(folder):
            pass
    except OSError as error:
        return FolderFacts(client=client, folder=folder, problem=error.strerror or str(error))
    started = time.monotonic()
    names: list[str] = []
    complete = True
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names += [
            os.path.join(place, name)  # a Path for each of a million files takes minutes
            for name in sorted(files)
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS
        ]
        if time.monotonic() - started > patience / 2:
            complete = False
            break
    broken: list[str] = []
    checked = 0
    for name in names:
        if time.monotonic() - started > patience or len(broken) == 3:
            break
        checked += 1
        try:
            measure(Path(name), max_pixels)
        except RefusedImageError as error:
            broken.append(f"{os.path.relpath(name, folder)}: {error.refusal.value}")
    return FolderFacts(
        client=client,
        folder=folder,
        images=len(names),
        counted_all=complete,
        checked=checked,
        broken=tuple(broken),
    )


def judge_folder(facts: FolderFacts) -> Iterator[Finding]:
    """Finding `data` of one client."""
    where = f"{facts.client}: {facts.folder}"
    if facts.problem:
        yield fault(
            "data", f"{where}: {facts.problem.lower()}",
            f"correct [data.folders] {facts.client}, or let this user read the folder",
        )  # fmt: skip
        return
    if facts.images == 0:
        yield fault(
            "data", f"{where}: no image in it", f"put images there; {', '.join(sorted(EXTENSIONS))} are known"
        )
        return
    many = f"{facts.images}{'' if facts.counted_all else ' or more'} images, {facts.checked} looked at"
    if facts.broken:
        if len(facts.broken) == facts.checked == facts.images:
            yield fault("data", f"{where}: {many}, none can be used; {facts.broken[0]}", "replace them")
            return
        yield warning(
            "data", f"{where}: {many}; {'; '.join(facts.broken)}",
            "what cannot be used is left out in training; remove or replace it to be rid of this",
        )  # fmt: skip
    else:
        yield ok("data", f"{where}: {many}, all good")
