"""A client's folder of images: there, readable, how many, and the first that is broken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ssd.daemon.doctor.findings import Finding, fault, ok, warning
from ssd.data.containers.open import container
from ssd.data.containers.protocol import Container
from ssd.data.images.decode import MAX_PIXELS, RefusedImageError, extensions, measure
from ssd.data.images.deep import Extremes, Window, narrowness
from ssd.data.images.errors import DataError
from ssd.data.images.walk import left_alone, worth_a_warning


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
    left_alone: str = ""
    """Other files and litter, by kind and number."""
    may_be_pictures: bool = False
    """Whether such a file may be a picture all the same."""
    narrow: str = ""
    """A sentence if those of more than 8 bits use little of their range."""


def gather_folder(
    client: str,
    place: Path | Container,
    patience: float,
    max_pixels: int = MAX_PIXELS,
    window: Window | None = None,
) -> FolderFacts:
    """Counts the images and decodes as many as fit into the time.

    Args:
        client: whose.
        place: the folder or archive, or a container of files.
        patience: seconds; half of it for counting.
        max_pixels: larger images count as broken.
        window: `[data] window`.
    """
    folder = place if isinstance(place, Path) else place.path
    started = time.monotonic()
    try:
        files = container(place) if isinstance(place, Path) else place
        found = files.walk(lambda: time.monotonic() - started > patience / 2)
    except DataError as error:
        cause = error.__cause__
        words = cause.strerror if isinstance(cause, OSError) else None
        return FolderFacts(client=client, folder=folder, problem=words or str(error))
    broken: list[str] = []
    checked = 0
    deep: Extremes | None = None
    for relative, _, _ in found.files:
        if time.monotonic() - started > patience or len(broken) == 3:
            break
        checked += 1
        try:
            seen = measure(partial(files.open, relative), max_pixels, window).extremes
            deep = deep if seen is None else seen.joined(deep)
        except RefusedImageError as error:
            broken.append(f"{relative}: {error}")
    return FolderFacts(
        client=client,
        folder=folder,
        images=len(found.files),
        counted_all=found.complete,
        checked=checked,
        broken=tuple(broken),
        left_alone=left_alone(found.others, found.litter),
        may_be_pictures=worth_a_warning(found.others),
        narrow=narrowness(deep, window),
    )


def judge_folder(facts: FolderFacts) -> Iterator[Finding]:
    """Finding `data` of one client."""
    where = f"{facts.client}: {facts.folder}"
    if facts.problem:
        # In full: a relative path does not say where it begins.
        yield fault(
            "data", f"{facts.client}: {facts.folder.absolute()}: {facts.problem.lower()}",
            f"correct [data.folders] {facts.client} (a relative path begins at the folder of the configuration file), or let"
            " this user read the folder",
        )  # fmt: skip
        return
    beside = f"; {facts.left_alone}" if facts.left_alone else ""
    if facts.images == 0:
        yield fault(
            "data",
            f"{where}: no image in it{beside}",
            f"put images there; {', '.join(sorted(extensions()))} are known",
        )
        return
    many = (
        f"{facts.images}{'' if facts.counted_all else ' or more'} images, {facts.checked} looked at{beside}"
    )
    if facts.broken:
        if len(facts.broken) == facts.checked == facts.images:
            yield fault("data", f"{where}: {many}, none can be used; {facts.broken[0]}", "replace them")
            return
        yield warning(
            "data", f"{where}: {many}; {'; '.join(facts.broken)}",
            "what cannot be used is left out in training; remove or replace it to be rid of this",
        )  # fmt: skip
    elif facts.narrow:
        yield warning(
            "data", f"{where}: {many}; {facts.narrow}", "set [data] window to the values of black and white"
        )
    elif facts.may_be_pictures:
        yield warning(
            "data", f"{where}: {many}; some of the other files may be pictures",
            "convert them, or give them their ending; what is not known is left out",
        )  # fmt: skip
    else:
        yield ok("data", f"{where}: {many}, all good")
