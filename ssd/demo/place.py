"""The demo's folder: taken by one demo at a time, emptied of what an earlier one left, nothing else touched."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from ssd.demo.settings import CONTENDERS
from ssd.federation.configs import COORDINATOR, WORKERS

MARKER = ".ssd-demo"
MADE = (
    "partition.json",
    "untrained.safetensors",
    "summary.json",
    "curves.png",
    "map.png",
    *(contender.method for contender in CONTENDERS),
)
"""Names of everything a demo puts there."""


class PlaceRefused(ValueError):
    """The folder is somebody else's, or in use; the message says what to do."""


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[None]:
    """The folder is ours and fresh within.

    Raises:
        PlaceRefused: it holds files no demo made, or another demo is at work there.
        OSError: it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise PlaceRefused(f"{out} is a file; name a folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    marker = out / MARKER
    if not marker.exists() and any(out.iterdir()):
        raise PlaceRefused(f"{out} holds files that are no demo's; name an empty or new folder with --out")
    with marker.open("a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlaceRefused(
                f"another demo is at work in {out}; wait for it, or name another --out"
            ) from None
        for name in MADE:
            _remove(out / name)
        yield


def drop_state(out: Path) -> None:
    """Remove the daemons' state directories; configurations, logs and results stay."""
    for contender in CONTENDERS:
        for name in (COORDINATOR, WORKERS):
            _remove(out / contender.method / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
