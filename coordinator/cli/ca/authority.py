"""`ssd-coordinator ca`: the federation's authority on the command line.

`init`, `issue` and `show` work on files alone, on whichever machine holds the authority's key.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from coordinator.cli import tables
from coordinator.cli.ca import tokens
from ssd.daemon.cli.options import FORM

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_FEDERATION = "ssd"
DEFAULT_PKI = Path("pki")
ROLES = ("operator", "observer", "evaluator", "worker", "coordinator")


@click.group()
def ca() -> None:
    """The federation's authority: who may take part, and who no longer may."""


for _command in (
    tokens.token,
    tokens.tokens,
    tokens.revoke_token,
    tokens.certificates,
    tokens.revoke,
):
    ca.add_command(_command)


def now() -> dt.datetime:
    """The present, aware."""
    return dt.datetime.now(dt.UTC)


_days = click.FloatRange(min=0, min_open=True, max=36500)
_hosts = click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME|ADDRESS",
    help="How the coordinator is reached; repeatable.",
)
_pki = click.option(
    "--pki",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_PKI,
    envvar="SSD_PKI",
    show_default=True,
    help="The authority's folder.",
)


@ca.command()
@click.option("--out", type=click.Path(path_type=Path), default=DEFAULT_PKI, show_default=True)
@_hosts
@click.option(
    "--federation", default=DEFAULT_FEDERATION, show_default=True, help="Its name, in every certificate."
)
@click.option(
    "--days", type=_days, default=3650.0, show_default=True, help="How long the authority is valid."
)
@click.option(
    "--certificate-days",
    type=_days,
    default=365.0,
    show_default=True,
    help="How long the coordinator's and the operator's certificates are valid.",
)
def init(out: Path, hosts: tuple[str, ...], federation: str, days: float, certificate_days: float) -> None:
    """Make the authority, and certificates for the coordinator and its operator. Once."""
    from coordinator.identity.authority import initialise

    if not hosts:
        raise click.UsageError("say with --host by which names and addresses workers reach the coordinator")
    files = initialise(
        out, hosts, federation=federation, authority_days=days, certificate_days=certificate_days, now=now()
    )
    click.echo("\n".join(map(str, files)))
    click.echo(
        f"keep {out / 'ca.key'} secret and backed up: whoever has it is the authority, whoever loses it begins anew",
        err=True,
    )


@ca.command("issue")
@click.option("--role", type=click.Choice(ROLES), required=True)
@click.option("--name", required=True, help="The holder's.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The holder's folder.")
@_hosts
@_pki
@click.option("--days", type=_days, default=365.0, show_default=True, help="How long it is valid.")
def issue_command(role: str, name: str, out: Path, hosts: tuple[str, ...], pki: Path, days: float) -> None:
    """Issue a certificate and its key to a folder, to be carried to its holder. Workers had better enrol."""
    from coordinator.identity.authority import issue_into
    from ssd.trust.names import Role

    files = issue_into(pki, out, Role(role), name, hosts=hosts, days=days, now=now())
    click.echo("\n".join(map(str, files)))


@ca.command()
@_pki
@FORM
def show(pki: Path, form: str) -> None:
    """Print the certificates of a folder: whose, until when, and the authority's pin."""
    from coordinator.identity.authority import describe

    found = [
        {
            "file": str(each.path),
            "holder": each.holder,
            "not_before": each.not_before.isoformat(),
            "not_after": each.not_after.isoformat(),
            "sha256": each.fingerprint,
        }
        for each in describe(pki)
    ]
    heads, columns = ("file", "holder", "valid until", "sha256"), ("file", "holder", "not_after", "sha256")
    tables.show(
        found, form, lambda rows: tables.table(heads, [[row[key] for key in columns] for row in rows])
    )
