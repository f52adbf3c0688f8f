"""`ssd-coordinator track --tensorboard DIR`: a run's curves for TensorBoard, while it goes on or afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coordinator.cli.reaching import Reach, verb
from coordinator.errors import OperatorFault
from ssd.daemon.printable import json_text, printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coordinator.cli.track.history import RunHistory
    from coordinator.rpc.operator.client import OperatorClient

Connect = Callable[[Reach], AbstractContextManager["OperatorClient"]]


class TensorBoardMissing(OperatorFault):
    """The optional package is not there."""

    code = "tensorboard_missing"


def track_command(connect: Connect = Reach.client) -> click.Command:
    """The command.

    Args:
        connect: opens a client of a coordinator.
    """

    @click.command("track")
    @verb
    @click.option(
        "--tensorboard", "folder", type=click.Path(path_type=Path, file_okay=False), required=True,
        help="Log directory; the run gets a folder of its own in it.",
    )  # fmt: skip
    @click.option(
        "--state-dir", type=click.Path(path_type=Path),
        help="Read this state directory instead of asking a coordinator, which need not run any more.",
    )  # fmt: skip
    @click.option(
        "--follow",
        "following",
        is_flag=True,
        help="Go on until the run has all of its rounds, or until Ctrl-C.",
    )
    @click.option(
        "--every", type=click.FloatRange(min=0.1), default=10.0, show_default=True,
        help="With --follow: seconds between looks.",
    )  # fmt: skip
    def track(
        place: Reach,
        folder: Path,
        state_dir: Path | None,
        following: bool,
        every: float,
    ) -> None:
        """Write losses, representation quality, evaluations and costs of a run as TensorBoard's scalars.

        Call it again at any time: what is there already is not written twice. Needs the package tensorboard
        (pip install '.[tensorboard]').
        """
        from coordinator.cli.track.follow import Copy, follow
        from coordinator.cli.track.history import LiveHistory, StoredHistory

        try:
            from coordinator.cli.track.tensorboard import EventFile
        except ImportError as error:
            raise TensorBoardMissing(
                f"this needs the package {error.name}: pip install '.[tensorboard]'"
            ) from error

        @contextmanager
        def source() -> Iterator[RunHistory]:
            if state_dir is not None:
                yield StoredHistory(state_dir)
                return
            with connect(place) as client:
                yield LiveHistory(client)

        def said(path: Path, newest: int, new: int) -> None:
            value = {"file": str(path), "round": newest, "written": new}
            human = f"{path}: {new} scalars written, up to round {newest}"
            click.echo(json_text(value) if place.form == "json" else printable_lines(human))

        with source() as history, Copy(history, folder, EventFile, said) as copy:
            new = copy.write(copy.read(), always_say=True)
            if following:
                follow(copy, new, lambda: time.sleep(every), time.monotonic)

    return track
