"""`ssd-worker`: run the daemon, look at its configuration, move clients between hosts.

Exit codes: 0 done; 1 a defect of ours; 2 wrong usage or configuration; 3 refused, or something is in use; 4 the
state directory fails. Nothing here imports torch; gRPC only when a command needs it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from worker.config import WorkerConfig, load
from worker.errors import OperatorFault

Json = Any


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ssd-federated", message="%(prog)s %(version)s")
def cli() -> None:
    """Worker of a federation: trains the clients it hosts."""


def _settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name a file and override single settings."""
    for option in reversed(
        [
            click.option(
                "--config", "path", type=click.Path(path_type=Path, dir_okay=False), help="TOML file."
            ),
            click.option(
                "--insecure", is_flag=True, default=None, help="Talk without TLS, to this machine only."
            ),
            click.option("--coordinator", help="host:port or unix:/path of the coordinator."),
            click.option("--name", help="This worker's name."),
            click.option("--device", help="auto, cpu, cuda or cuda:N."),
            click.option("--state-dir", help="Where finished updates and client states are kept."),
            click.option("--http-listen", help="host:port of /metrics; empty: off."),
            click.option("--clients", help="Hosted clients, separated by commas; *: all there are."),
            click.option("--partition", help="Partition file of a built-in data set."),
            click.option("--log-level", help="debug, info, warning or error."),
            click.option(
                "--set", "assignments", multiple=True, metavar="TABLE.KEY=VALUE", help="Any setting."
            ),
        ]
    ):
        command = option(command)
    return command


def _load(
    path: Path | None,
    insecure: bool | None,
    coordinator: str | None,
    name: str | None,
    device: str | None,
    state_dir: str | None,
    http_listen: str | None,
    clients: str | None,
    partition: str | None,
    log_level: str | None,
    assignments: tuple[str, ...],
) -> WorkerConfig:
    flags: dict[str, Json] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise click.UsageError(f"--set {assignment}: write table.key=value, for example log.level=debug")
        flags[key.strip()] = value.strip()
    named = {
        "transport.insecure": insecure,
        "worker.coordinator": coordinator,
        "worker.name": name,
        "worker.device": device,
        "worker.state_dir": state_dir,
        "worker.http_listen": http_listen,
        "data.clients": None if clients is None else [client for client in clients.split(",") if client],
        "data.partition": partition,
        "log.level": log_level,
    }
    return load(path, flags | {key: value for key, value in named.items() if value is not None})


@cli.command()
@_settings
def run(**options: Any) -> None:
    """Attend the coordinator and train what it asks for, until stopped."""
    config = _load(**options)
    from worker.app import run as run_worker

    run_worker(config)


@cli.group()
def config() -> None:
    """Look at the configuration."""


@config.command("show")
@_settings
def config_show(**options: Any) -> None:
    """Print every setting as `run` would have it, as JSON."""
    click.echo(json.dumps(_load(**options).resolved(), indent=2))


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit code is returned and, from a console script, raised."""
    try:
        cli.main(arguments, prog_name="ssd-worker", standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except OperatorFault as fault:
        click.echo(f"error: {fault}", err=True)
        return fault.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
