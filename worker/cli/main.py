"""`ssd-worker`: run the daemon, look at its configuration, move clients between hosts.

Its exit codes are `worker.errors.EXIT_CODES`. Nothing here imports torch. What reads configurations, keys, numbers or
the network (pydantic, cryptography, numpy, gRPC) is imported by the command that needs it, when it runs.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from ssd.daemon.cli.completion import completion_command
from ssd.daemon.cli.exit_codes import EXIT_DEFECT
from ssd.daemon.cli.extras import require
from ssd.daemon.cli.guard import run_guarded
from ssd.daemon.cli.help_text import add_examples, codes_sentence
from ssd.daemon.cli.options import FORM, SET, settings_of
from ssd.daemon.doctor.command import doctor_command
from ssd.daemon.doctor.findings import Finding
from ssd.daemon.printable import json_text
from worker.cli.config import config_group
from worker.cli.examples import EXAMPLES
from worker.cli.identity import identity_group
from worker.cli.receipts import receipts_command
from worker.errors import EXIT_CODES, OperatorFault, WorkerError

if TYPE_CHECKING:
    from worker.config.sections import WorkerConfig
    from worker.store.sqlite import SqliteStore

Json = Any
_CODES = codes_sentence(EXIT_CODES)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ssd-federated", message="%(prog)s %(version)s")
def cli() -> None:
    """Worker of a federation: trains the clients it hosts."""


def _settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name a file and override single settings."""
    for option in reversed(
        [
            click.option(
                "--config", "config_path", type=click.Path(path_type=Path, dir_okay=False), help="TOML file."
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
            click.option(
                "--accept-rollback",
                is_flag=True,
                default=None,
                help="Forget a history the coordinator undid.",
            ),
            click.option("--log-level", help="debug, info, warning or error."),
            SET,
        ]
    ):
        command = option(command)
    return command


def _load(
    config_path: Path | None,
    insecure: bool | None,
    coordinator: str | None,
    name: str | None,
    device: str | None,
    state_dir: str | None,
    http_listen: str | None,
    clients: str | None,
    partition: str | None,
    accept_rollback: bool | None,
    log_level: str | None,
    assignments: tuple[str, ...],
    environ: Mapping[str, str] | None = None,
) -> WorkerConfig:
    named = {
        "transport.insecure": insecure,
        "worker.coordinator": coordinator,
        "worker.name": name,
        "worker.device": device,
        "worker.state_dir": state_dir,
        "worker.http_listen": http_listen,
        "data.clients": None if clients is None else _client_ids(clients),
        "data.partition": partition,
        "worker.accept_rollback": accept_rollback,
        "log.level": log_level,
    }
    from worker.config.sections import load

    return load(config_path, settings_of(assignments, named), environ)


def _client_ids(text: str) -> list[str]:
    """The ids of `a,b,c`, or those in the file of `@file`, one a line."""
    if not text.startswith("@"):
        return [client for client in text.split(",") if client]
    try:
        return Path(text[1:]).read_text(encoding="utf-8-sig").split()
    except OSError as error:
        raise click.UsageError(f"--clients {text}: cannot be read: {error.strerror}") from error


@cli.command()
@_settings
@click.option("--devices", help="One worker process per device: all, or a list like 0,1 or cpu,cpu.")
def run(devices: str | None, **options: Any) -> int:
    """Attend the coordinator and train what it asks for, until stopped."""
    config = _load(**options)
    require("worker")
    if devices is not None:
        from worker.cli import supervisor

        found = supervisor.parse_devices(devices, os.environ, supervisor.count_gpus)
        return supervisor.supervise(config, supervisor.members(config, found, _shared_arguments(options)))
    # gRPC's own chatter does not look like a log line of ours; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from worker.app import run as run_worker

    run_worker(config)
    return 0


def _shared_arguments(options: Mapping[str, Any]) -> list[str]:
    """The arguments that every process of `--devices` gets; the others are per device."""
    shared = ["run"]
    for flag, key in (("--config", "config_path"), ("--coordinator", "coordinator"), ("--partition", "partition"),
                      ("--log-level", "log_level")):  # fmt: skip
        if options[key] is not None:
            shared += [flag, str(options[key])]
    if options["insecure"]:
        shared.append("--insecure")
    if options["accept_rollback"]:
        shared.append("--accept-rollback")
    for assignment in options["assignments"]:
        shared += ["--set", assignment]
    return shared


@cli.command()
@click.option(
    "--token",
    envvar="SSD_JOIN_TOKEN",
    show_envvar=True,
    help="What `ssd-coordinator ca token` printed. Others on this host may see it; it works once.",
)
@click.option("--token-file", type=click.File(), help="A file that holds it instead; -: standard input.")
@click.option("--coordinator", help="Enrolment port, host:port.  [default: from the token]")
@click.option("--server-name", help="The name its certificate carries.  [default: from the configuration]")
@click.option("--replace", is_flag=True, help="Take the place of another identity that is there.")
@click.option("--state-dir", help="Where finished updates and client states are kept.")
@click.option("--identity-dir", help="Where the identity goes.  [default: identity in the state directory]")
@click.option("--config", "path", type=click.Path(path_type=Path, dir_okay=False), help="TOML file.")
def enroll(
    token: str | None,
    token_file: TextIO | None,
    coordinator: str | None,
    server_name: str | None,
    replace: bool,
    state_dir: str | None,
    identity_dir: str | None,
    path: Path | None,
) -> None:
    """Join a federation: make a key here and get a certificate for a join token. Again is no error."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from ssd.daemon.address import proxy_of
    from worker.config.sections import load
    from worker.connection.enrolment import enrol, for_this_host
    from worker.rpc.enrolment import enroll as ask

    if (token is None) == (token_file is None):
        raise click.UsageError("give the join token with --token, --token-file or SSD_JOIN_TOKEN")
    flags = {
        "worker.state_dir": state_dir,
        "transport.identity_dir": identity_dir,
        "transport.server_name": server_name,
    }
    settings = load(path, {key: value for key, value in flags.items() if value is not None})
    text = token if token_file is None else token_file.read(4096)
    joining, address = for_this_host(text or "", coordinator, settings.worker)
    done = enrol(
        joining,
        address,
        settings.identity_dir,
        partial(ask, proxy=settings.transport.proxy),
        server_name=settings.transport.server_name,
        replace=replace,
        proxy=proxy_of(address, settings.transport.proxy, os.environ),
    )
    is_was = "is now" if done.fresh else "was already"
    click.echo(
        f"this host {is_was} {done.subject.role.value} {done.subject.name} of {done.subject.federation}, until"
        f" {done.not_after:%Y-%m-%d %H:%M} UTC: {done.folder}"
    )


cli.add_command(identity_group(_load, _settings), "identity")
cli.add_command(receipts_command(_load, _settings), "receipts")


cli.add_command(config_group(_load, _settings))


def _examine(config: Any, patience: float, now: dt.datetime) -> Iterable[Finding]:
    # What it needs is imported when it runs: other commands stay quick.
    from worker.cli.doctor import examine

    return examine(config, patience, now)


cli.add_command(
    doctor_command(
        "Check network, certificates, clock, disk, data, GPU and versions, and say what to do. Changes nothing.",
        _load,
        _settings,
        _examine,
    )
)


@cli.group()
def client() -> None:
    """Clients' states on this host. The worker must be stopped."""


def _stored(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which state directory is meant."""
    for option in (
        click.option("--state-dir", type=click.Path(path_type=Path), help="The worker's state directory."),
        click.option("--config", "path", type=click.Path(path_type=Path, dir_okay=False), help="TOML file."),
    ):
        command = option(command)
    return command


@contextmanager
def _store(path: Path | None, state_dir: Path | None) -> Iterator[SqliteStore]:
    from worker.config.sections import load
    from worker.store.sqlite import SqliteStore

    where = state_dir or load(path).worker.state_dir
    if not where.is_dir():
        raise click.UsageError(f"there is no state directory at {where}")
    store = SqliteStore(where)
    try:
        yield store
    finally:
        store.close()


@client.command("list")
@_stored
@FORM
def client_list(path: Path | None, state_dir: Path | None, form: str) -> None:
    """Every client the store holds something of."""
    from worker.store.move_client import list_clients

    with _store(path, state_dir) as store:
        found = list_clients(store)
    if form == "json":
        click.echo(json_text([asdict(summary) for summary in found]))
        return
    for summary in found:
        now = "current" if summary.current_run else "earlier"
        click.echo(
            f"{summary.client}  run {summary.run[:16]} ({now})  last committed round "
            f"{summary.last_committed_round}  state {summary.state_bytes} bytes  open updates {summary.held_updates}"
        )


@client.command("export")
@click.argument("client_id", metavar="CLIENT")
@_stored
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file to write."
)
@click.option("--run", "run_id", help="Of which run.  [default: the current one]")
@click.option("--remove", is_flag=True, help="Remove the client from this host once the file is safe.")
def client_export(
    client_id: str, path: Path | None, state_dir: Path | None, out: Path, run_id: str | None, remove: bool
) -> None:
    """Write CLIENT's state to a file that another host can import."""
    from worker.store.move_client import export_client

    with _store(path, state_dir) as store:
        export_client(store, client_id, out, run=run_id, remove=remove)
    click.echo(f"exported {client_id} -> {out}")


@client.command("import")
@click.argument("source", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@_stored
def client_import(source: Path, path: Path | None, state_dir: Path | None) -> None:
    """Take over a client's state from a file that `export` wrote."""
    from worker.store.move_client import import_client

    if state_dir is not None:
        state_dir.mkdir(parents=True, exist_ok=True)
    with _store(path, state_dir) as store:
        summary = import_client(store, source)
    click.echo(f"imported {summary.client} as of round {summary.last_committed_round}")


cli.add_command(completion_command("ssd-worker"))
add_examples(cli, "ssd-worker", EXAMPLES, _CODES)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    return run_guarded(cli, "ssd-worker", arguments, _exit_code)


def _exit_code(error: Exception) -> int | None:
    if isinstance(error, OperatorFault):
        return error.exit_code
    return EXIT_DEFECT if isinstance(error, WorkerError) else None


if __name__ == "__main__":
    sys.exit(main())
