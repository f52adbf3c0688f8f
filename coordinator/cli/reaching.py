"""How a verb reaches a running coordinator: the options that say where it is, and what a verb gets of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coordinator.cli import tables
from ssd.daemon.cli.options import FORM

if TYPE_CHECKING:
    from coordinator.rpc.operator.channel import Caller
    from coordinator.rpc.operator.client import OperatorClient

Json = Any
Command = Callable[..., Any]

CONFIG = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help="TOML file; see deploy/config."
)
_OPTIONS = (
    click.option(
        "--insecure", is_flag=True, help="Talk without TLS, to this machine only.  [default: from --config]"
    ),
    click.option(
        "--pki", type=click.Path(path_type=Path), default="pki", envvar="SSD_PKI", show_default=True, show_envvar=True,
        help="Folder with ca.pem, operator.pem and operator.key.",
    ),
    click.option("--address", help="host:port or unix:/path.  [default: from --config, else 127.0.0.1:7443]"),
    CONFIG,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """Where the coordinator is, as the command line says, and in which form answers are shown."""

    config_path: Path | None
    address: str | None
    pki: Path
    insecure: bool
    form: str = "human"
    """`human` or `json`."""

    def caller(self) -> Caller:
        """Whom to call, and as whom."""
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        from coordinator.config.sections import load
        from coordinator.rpc.operator.channel import Caller

        said = load(self.config_path)
        insecure = self.insecure or said.transport.insecure
        return Caller(self.address or said.coordinator.listen, None if insecure else self.pki)

    def client(self) -> OperatorClient:
        """A client of it, to be closed."""
        caller = self.caller()
        from coordinator.rpc.operator.client import OperatorClient

        return OperatorClient(caller)

    def show(self, value: Json, human: Callable[[Json], str]) -> None:
        """Print an answer: as JSON, or as what `human` makes of it."""
        tables.show(value, self.form, human)


def reaching(command: Command) -> Command:
    """Adds the options, of which the command gets a `Reach` as its first argument."""

    @wraps(command)
    def reached(
        config_path: Path | None,
        address: str | None,
        pki: Path,
        insecure: bool,
        form: str = "human",
        **options: Any,
    ) -> Any:
        place = Reach(config_path=config_path, address=address, pki=pki, insecure=insecure, form=form)
        return command(place, **options)

    for option in _OPTIONS:
        reached = option(reached)
    return reached


def verb(command: Command) -> Command:
    """`reaching`, for commands that have something to show: `--format`, too."""
    return reaching(FORM(command))
