"""`ssd-coordinator track --tensorboard DIR`: a run's curves for TensorBoard, while it goes on or afterwards."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coordinator.errors import OperatorFault
from coordinator.run_history import LiveHistory, RunHistory, StoredHistory
from coordinator.tracking import Row, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coordinator.rpc.operator_client import OperatorClient

Command = TypeVar("Command", bound=Callable[..., Any])
Connect = Callable[[Path | None, str | None, Path, bool], AbstractContextManager["OperatorClient"]]
PATIENCE_SECONDS = 60.0
"""With --follow: how long nobody may answer."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


class TensorBoardMissing(OperatorFault):
    """The optional package is not there."""

    code = "tensorboard_missing"


class NameUnusable(OperatorFault):
    """What the coordinator calls its run is no name for a folder."""

    code = "name_unusable"


def track_command(connect: Connect, verb: Callable[[Command], Command]) -> click.Command:
    """The command.

    Args:
        connect: opens a client from --config, --address, --pki and --insecure.
        verb: the options of everything that talks to a running coordinator.
    """

    @click.command("track")
    @verb  # type: ignore[arg-type]  # a decorator of commands of every signature
    @click.option(
        "--tensorboard", "folder", type=click.Path(path_type=Path, file_okay=False), required=True,
        help="Log directory; the run gets a folder of its own in it.",
    )  # fmt: skip
    @click.option(
        "--state-dir", type=click.Path(path_type=Path),
        help="Read this state directory instead of asking a coordinator, which need not run any more.",
    )  # fmt: skip
    @click.option(
        "--follow", is_flag=True, help="Go on until the run has all of its rounds, or until Ctrl-C."
    )
    @click.option(
        "--every", type=click.FloatRange(min=0.1), default=10.0, show_default=True,
        help="With --follow: seconds between looks.",
    )  # fmt: skip
    def track(
        config_path: Path | None,
        address: str | None,
        pki: Path,
        insecure: bool,
        form: str,
        folder: Path,
        state_dir: Path | None,
        follow: bool,
        every: float,
    ) -> None:
        """Write losses, representation quality, evaluations and costs of a run as TensorBoard's scalars.

        Call it again at any time: what is there already is not written twice. Needs the package tensorboard
        (pip install 'ssd-federated[tensorboard]').
        """
        try:
            from coordinator.tensorboard_file import EventFile
        except ImportError as error:
            raise TensorBoardMissing(
                f"this needs the package {error.name}: pip install 'ssd-federated[tensorboard]'"
            ) from error

        @contextmanager
        def source() -> Iterator[RunHistory]:
            if state_dir is not None:
                yield StoredHistory(state_dir)
                return
            with connect(config_path, address, pki, insecure) as client:
                yield LiveHistory(client)

        with source() as history:
            method, run_id, finished = history.name()
            name = f"{method}-{run_id}"
            if not _NAME.fullmatch(name):
                raise NameUnusable(f"the run is called {name!r}, which is no name for a folder")
            with EventFile(folder / name) as file:
                newest, new = _write(file.add, history, 0)
                _say(form, file.path, newest, new)
                missed = 0.0
                while follow and not (finished and new == 0):
                    time.sleep(every)
                    try:
                        _, _, finished = history.name()
                        newest, new = _write(file.add, history, newest)
                    except OperatorFault:
                        # A coordinator may be restarted meanwhile.
                        missed += every
                        if missed > PATIENCE_SECONDS:
                            raise
                        continue
                    missed = 0.0
                    if new:
                        _say(form, file.path, newest, new)

    return track


def _write(add: Callable[[Sequence[Row]], int], history: RunHistory, newer_than: int) -> tuple[int, int]:
    """The newest committed round, and how many scalars were new."""
    found = history.rounds(newer_than)
    new = add(rows(found, history.evaluations()))
    committed = [each["round"] for each in found if each["outcome"] == "committed"]
    return max(committed, default=newer_than), new


def _say(form: str, path: Path, newest: int, new: int) -> None:
    value = {"file": str(path), "round": newest, "written": new}
    human = f"{path}: {new} scalars written, up to round {newest}"
    click.echo(json.dumps(value, ensure_ascii=False) if form == "json" else human)
