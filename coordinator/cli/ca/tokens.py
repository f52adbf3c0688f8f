"""`ssd-coordinator ca token|tokens|revoke-token|certificates|revoke`: who may join, who did, and who no longer may.

All work on the state database, whether or not the coordinator runs; a running one takes notice within a second.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coordinator.cli import tables
from coordinator.errors import AuthorityRefused
from ssd.daemon.cli.options import FORM

if TYPE_CHECKING:
    from coordinator.store.trust import SqliteTrust

Command = TypeVar("Command", bound=Callable[..., Any])
Json = Any

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_SECONDS = 90 * 86400


def _lifetime(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    """`90s`, `30m`, `1h`, `2d` as seconds, at most 90 days."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise click.BadParameter(f"{text!r} is no duration up to 90 days: write 90s, 30m, 1h or 2d")
    return float(seconds)


def _stored(command: Command) -> Command:
    """The options that say which federation is meant."""
    command = click.option(
        "--state-dir", type=click.Path(path_type=Path), help="The coordinator's.  [default: from --config]"
    )(command)
    return click.option(
        "--config", "config_path", type=click.Path(path_type=Path), help="The coordinator's TOML file."
    )(command)


_role = click.option(
    "--role", type=click.Choice(["worker", "evaluator"]), default="worker", show_default=True
)


@contextlib.contextmanager
def _trust(config_path: Path | None, state_dir: Path | None) -> Iterator[SqliteTrust]:
    from coordinator.config.sections import load
    from coordinator.store.trust import SqliteTrust

    store = SqliteTrust(state_dir or load(config_path).coordinator.state_dir)
    try:
        yield store
    finally:
        store.close()


@click.command()
@click.option("--worker", "name", required=True, help="The host's name among the workers.")
@_role
@click.option("--clients", default="", help="The clients it will host, separated by commas.")
@click.option(
    "--ttl", callback=_lifetime, default="1h", show_default=True, help="How long the token is good."
)
@click.option("--address", help="Where to enrol, host:port.  [default: from --config]")
@click.option(
    "--pki",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="SSD_PKI",
    help="Folder with ca.pem.  [default: from --config, else pki]",
)
@_stored
def token(
    name: str,
    role: str,
    clients: str,
    ttl: float,
    address: str | None,
    pki: Path | None,
    config_path: Path | None,
    state_dir: Path | None,
) -> None:
    """Print a join token, good for one certificate. Hand it over like a password."""
    from coordinator.config.sections import load
    from coordinator.identity.tokens import enrolment_address, make_token
    from coordinator.ports.trust import Holder
    from coordinator.store.journal.reading import read_run
    from ssd.trust.names import Role

    said = load(config_path)
    authority = pki / "ca.pem" if pki else said.transport.authority
    own = pki / "coordinator.pem" if pki else said.transport.certificate
    where = _address(address) or enrolment_address(said.enrolment.listen, own)
    folder = state_dir or said.coordinator.state_dir
    with _trust(config_path, state_dir) as store:
        made = make_token(
            store,
            _bindings(store.path.parent),
            authority,
            Holder(Role(role), name),
            [client for client in clients.split(",") if client],
            address=where,
            lifetime=ttl,
            now=time.time(),
        )
        # A relative path means another folder in another place than the one the coordinator was started in. The
        # database alone says nothing: this command makes it, too.
        new = read_run(folder) is None
    click.echo(made.text())
    until = _date(time.time() + ttl)
    click.echo(
        f"for {role} {name}, once, until {until}; on its host: ssd-worker enroll --token TOKEN", err=True
    )
    click.echo(f"its digest is kept in {store.path}", err=True)
    if new:
        click.echo(
            f"warning: no coordinator has run on {folder.absolute()} yet; if yours keeps its state elsewhere it will not"
            " know this token: say with --state-dir where",
            err=True,
        )
    if not where:
        click.echo(
            "the token does not say where to enrol: set [enrolment] listen, or give enroll --coordinator HOST:PORT",
            err=True,
        )


def _bindings(state_dir: Path) -> Mapping[str, str]:
    from coordinator.store.journal.bindings import SqliteBindings

    store = SqliteBindings(state_dir)
    try:
        return store.bindings()
    finally:
        store.close()


def _address(text: str | None) -> str:
    from ssd.daemon.address import parse_address

    if text is None:
        return ""
    try:
        found = parse_address(text)
    except ValueError as error:
        raise click.UsageError(f"--address: {error}") from error
    if found.path or found.port == 0:
        raise click.UsageError(f"--address {text}: give host:port")
    return str(found)


@click.command()
@_stored
@FORM
def tokens(config_path: Path | None, state_dir: Path | None, form: str) -> None:
    """List the join tokens, newest first. The tokens themselves are nowhere kept."""
    from coordinator.identity.tokens import SHOWN, state

    now = time.time()
    with _trust(config_path, state_dir) as store:
        found = [
            {
                "id": each.digest[:SHOWN],
                "role": each.holder.role.value,
                "name": each.holder.name,
                "clients": list(each.clients),
                "state": state(each, now),
                "created_at": each.created_at,
                "expires_at": each.expires_at,
                "serial": each.serial,
            }
            for each in store.tokens()
        ]
    _show(found, form, ("id", "role", "name", "state", "expires_at"), empty="no token was made yet")


@click.command("revoke-token")
@click.argument("shown", metavar="ID")
@_stored
def revoke_token(shown: str, config_path: Path | None, state_dir: Path | None) -> None:
    """Make a token worthless that nobody used yet. `ca tokens` lists the ids."""
    from coordinator.identity.tokens import SHOWN, find

    with _trust(config_path, state_dir) as store:
        found = find(store, shown)
        if found.used_at is not None:
            raise AuthorityRefused(
                f"{found.holder.name} has used it already: revoke its certificate with"
                f" `ca revoke --role {found.holder.role.value} --worker {found.holder.name}`"
            )
        store.withdraw_token(found.digest, time.time())
    click.echo(f"withdrew token {found.digest[:SHOWN]} of {found.holder.role.value} {found.holder.name}")


@click.command()
@_stored
@FORM
def certificates(config_path: Path | None, state_dir: Path | None, form: str) -> None:
    """List the certificates this coordinator issued, oldest first."""
    now = time.time()
    with _trust(config_path, state_dir) as store:
        revoked = store.revoked()
        found = [
            {
                "serial": each.serial,
                "role": each.holder.role.value,
                "name": each.holder.name,
                "state": "revoked"
                if each.holder in revoked
                else "valid"
                if now < each.expires_at
                else "expired",
                "issued_at": each.issued_at,
                "expires_at": each.expires_at,
            }
            for each in store.certificates()
        ]
    _show(
        found, form, ("serial", "role", "name", "state", "expires_at"), empty="no certificate was issued yet"
    )


@click.command()
@click.option("--worker", "name", required=True, help="The holder's name.")
@click.option(
    "--role",
    type=click.Choice(["worker", "evaluator", "operator", "observer"]),
    default="worker",
    show_default=True,
)
@_stored
def revoke(name: str, role: str, config_path: Path | None, state_dir: Path | None) -> None:
    """Never again accept a certificate of this name, nor issue one. This cannot be undone."""
    from coordinator.ports.trust import Holder
    from ssd.trust.names import Role

    with _trust(config_path, state_dir) as store:
        news = store.revoke(Holder(Role(role), name), time.time())
    click.echo(f"revoked {role} {name}" if news else f"{role} {name} was revoked before")


def _show(found: Sequence[Mapping[str, Json]], form: str, columns: Sequence[str], *, empty: str) -> None:
    def text(told: Json) -> str:
        rows = [[_date(each[key]) if key.endswith("_at") else each[key] for key in columns] for each in told]
        return tables.table([key.removesuffix("_at") for key in columns], rows) if rows else empty

    tables.show(found, form, text)


def _date(at: float) -> str:
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d %H:%M} UTC"
