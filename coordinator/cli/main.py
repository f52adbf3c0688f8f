"""`ssd-coordinator`: run the daemon, ask it, tell it.

Its exit codes are `coordinator.errors.EXIT_CODES`. Nothing here imports torch. What reads configurations, keys, numbers
or the network (pydantic, cryptography, numpy, gRPC) is imported by the command that needs it, when it runs: `--help` and
completion answer at once.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coordinator.cli import tables
from coordinator.cli.audit import audit
from coordinator.cli.ca.authority import ca
from coordinator.cli.ca.policy import policy_group
from coordinator.cli.ca.registry import registry
from coordinator.cli.config import config_group
from coordinator.cli.examples import EXAMPLES
from coordinator.cli.explain_cli import explain
from coordinator.cli.reaching import CONFIG, Reach, verb
from coordinator.cli.track.command import track_command
from coordinator.cli.watch.command import watch_command
from coordinator.errors import EXIT_CODES, CoordinatorError, OperatorFault
from ssd.daemon.cli.completion import completion_command
from ssd.daemon.cli.exit_codes import EXIT_DEFECT
from ssd.daemon.cli.extras import require
from ssd.daemon.cli.guard import run_guarded
from ssd.daemon.cli.help_text import add_examples, codes_sentence
from ssd.daemon.cli.options import SET, settings_of
from ssd.daemon.doctor.command import doctor_command
from ssd.daemon.doctor.findings import Finding
from ssd.daemon.printable import printable

if TYPE_CHECKING:
    from coordinator.config.sections import CoordinatorConfig

Json = Any
Command = TypeVar("Command", bound=Callable[..., Any])

_CODES = codes_sentence(EXIT_CODES)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script; ends the process with a documented exit code."""
    sys.exit(run_guarded(cli, "ssd-coordinator", arguments, _exit_code))


def _exit_code(error: Exception) -> int | None:
    if isinstance(error, OperatorFault):
        return error.exit_code
    return EXIT_DEFECT if isinstance(error, CoordinatorError) else None


@click.group(epilog=_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ssd-federated", message="%(prog)s %(version)s")
def cli() -> None:
    """Coordinator of a federation: runs rounds, and answers its operator."""


cli.add_command(ca)
cli.add_command(registry)
cli.add_command(audit)
cli.add_command(explain)


def _settings(command: Command) -> Command:
    """The options that change single settings."""
    command = click.option("--rounds", type=int, help="run.rounds")(SET(command))
    command = click.option("--state-dir", help="coordinator.state_dir")(command)
    command = click.option("--listen", help="coordinator.listen: host:port or unix:/path")(command)
    command = click.option("--insecure", is_flag=True, help="Serve without TLS, to this machine only.")(
        command
    )
    return CONFIG(command)


def _load(
    config_path: Path | None,
    insecure: bool,
    listen: str | None,
    state_dir: str | None,
    rounds: int | None,
    assignments: tuple[str, ...],
    environ: Mapping[str, str] | None = None,
) -> CoordinatorConfig:
    named = {
        "transport.insecure": insecure or None,
        "coordinator.listen": listen,
        "coordinator.state_dir": state_dir,
        "run.rounds": rounds,
    }
    from coordinator.config.sections import load

    return load(config_path, settings_of(assignments, named), environ)


@cli.command(epilog=_CODES)
@_settings
def run(**options: Any) -> int:
    """Run the coordinator until it is stopped, drained or done."""
    config = _load(**options)
    require("worker")  # for the method host, which makes the first model
    # gRPC's own chatter does not look like a log line of ours; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from coordinator.app import run as run_app

    return run_app(config)


cli.add_command(config_group(_load, _settings))
cli.add_command(policy_group(_load, _settings))


def _examine(config: Any, patience: float, now: dt.datetime) -> Iterable[Finding]:
    # What it needs is imported when it runs: other commands stay quick.
    from coordinator.cli.doctor import examine

    return examine(config, patience, now)


cli.add_command(
    doctor_command(
        "Check ports, certificates, clock, disk, the run and versions, and say what to do. Changes nothing.",
        _load,
        _settings,
        _examine,
    )
)


cli.add_command(watch_command())


@cli.command()
@verb
@click.option("--watch", is_flag=True, help="Print again at every change, until Ctrl-C.")
def status(place: Reach, watch: bool) -> None:
    """What the coordinator is doing now."""
    with place.client() as client:
        if not watch:
            place.show(client.status(), tables.status)
            return
        for value in client.watch():
            if place.form == "human" and sys.stdout.isatty():
                click.clear()
            place.show(value, tables.status)


@cli.command()
@verb
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
def rounds(place: Reach, limit: int) -> None:
    """Round attempts, newest first."""
    with place.client() as client:
        place.show(client.rounds(limit), tables.rounds)


@cli.command()
@verb
def evaluations(place: Reach) -> None:
    """Everything that was measured in this run, by version."""
    with place.client() as client:
        place.show(client.evaluations(), tables.evaluations)


@cli.group(invoke_without_command=True)
@verb
@click.pass_context
def clients(
    context: click.Context,
    place: Reach,
) -> None:
    """Registered clients: who hosts them, what they contributed, which dimensions are theirs."""
    if context.invoked_subcommand is not None:
        return
    with place.client() as client:
        place.show(client.clients(), tables.clients)


@clients.command("move")
@click.argument("client_id", metavar="CLIENT")
@click.option("--to", "worker", required=True, metavar="WORKER", help="The worker it belongs to from now on.")
@verb
def clients_move(
    place: Reach,
    client_id: str,
    worker: str,
) -> None:
    """Give CLIENT to another worker. Take it out of the old one's configuration first."""
    with place.client() as client:
        before = client.move_client(client_id, worker)
        value = {"done": "move", "client": client_id, "worker": worker, "before": before}
        place.show(
            value,
            lambda _: (
                f"{client_id} belongs to {worker} now"
                + (f", before to {printable(before)}" if before else "")
            ),
        )


def _wish(name: str, done: str, text: str) -> None:
    """A verb that changes something and has nothing to show."""

    @cli.command(name, help=text)
    @verb
    def command(place: Reach) -> None:
        with place.client() as client:
            getattr(client, name)()
            place.show({"done": name}, lambda _: done)


_wish("pause", "paused: the attempt under way is finished, no further one begins until resume",
      "Finish the attempt under way, then begin no further one until resume.")  # fmt: skip
_wish("resume", "resumed", "Go on after a pause or a halt.")
_wish("drain", "draining: the coordinator finishes the attempt under way and stops",
      "Finish the attempt under way, then stop the coordinator.")  # fmt: skip


@cli.command()
@click.argument("client_id", metavar="CLIENT", required=False)
@click.option("--worker", metavar="NAME", help="Cut off the worker of this name.")
@click.option("--evaluator", metavar="NAME", help="Cut off the evaluator of this name.")
@click.option("--operator", metavar="NAME", help="Cut off the operator of this name.")
@click.option("--observer", metavar="NAME", help="Cut off the observer of this name.")
@verb
def revoke(
    place: Reach,
    client_id: str | None,
    **holders: str | None,
) -> None:
    """Never sample CLIENT again and refuse its uploads; or cut off, at once, the holder of a certificate.

    The clients of a worker that is cut off are not revoked: they wait until they are moved to another. Neither can be
    undone.
    """
    named = [(role, name) for role, name in holders.items() if name is not None]
    if len(named) + (client_id is not None) != 1:
        raise click.UsageError("name one CLIENT, or one of --worker, --evaluator, --operator and --observer")
    with place.client() as client:
        if client_id is not None:
            client.revoke(client_id)
            place.show({"done": "revoke", "client": client_id}, lambda _: f"revoked {client_id}")
            return
        ((role, name),) = named
        connected = client.revoke_identity(role, name)
        value = {"done": "revoke", "role": role, "name": name, "connected": connected}
        place.show(value, lambda _: f"revoked {role} {name}" + (", which was connected" if connected else ""))


@cli.command()
@verb
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The new file.")
@click.option("--version", "number", type=click.IntRange(min=0), help="Which version.  [default: the newest]")
@click.option("--part", help="Another part, such as projector or head.  [default: the encoder]")
@click.option("--trained-on", help="Name of the data set, to be noted in the file.")
@click.option("--method", help="The method's own file, if it is not built in.  [default: from --config]")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def export(
    place: Reach,
    out: Path,
    number: int | None,
    part: str | None,
    trained_on: str | None,
    method: str | None,
    force: bool,
) -> None:
    """Write the encoder of the newest version as safetensors."""
    from coordinator.cli.export import export as export_version
    from coordinator.config.sections import load

    if out.exists() and not force:
        raise click.UsageError(f"{out} exists: choose another name or add --force")
    if method is None and place.config_path is not None:
        method = load(place.config_path).method.name
    with place.client() as client:
        run_id = client.status()["run_id"]
        found = export_version(
            client, out, number=number, method=method, run_id=run_id, part=part, trained_on=trained_on
        )
    value = {"out": str(out), "version": found.number, "model_digest": found.model_digest}
    place.show(value, lambda _: f"version {found.number} ({found.model_digest[:16]}) -> {out}")


cli.add_command(track_command())
cli.add_command(completion_command("ssd-coordinator"))
add_examples(cli, "ssd-coordinator", EXAMPLES, _CODES)
