"""`ssd-coordinator registry keygen|new|add|sign|verify|show`: the registry of participants, made away from the coordinator.

All work on files alone. The signing key belongs on a machine of whoever answers for the participants; the coordinator
never needs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from coordinator.cli import tables
from coordinator.errors import AuthorityRefused
from ssd.daemon.cli.options import FORM
from ssd.daemon.printable import json_text, printable

Json = Any
T = TypeVar("T")
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def registry() -> None:
    """The registry of participants: who signs with which key, for which clients. Works on files, not on a coordinator."""


@registry.command()
@click.option("--out", type=_FILE, required=True, help="The new key file, mode 0600.")
def keygen(out: Path) -> None:
    """Make the key that signs the registry, and print its public part, which workers pin."""
    from ssd.trust.signing import create_key_file, public_hex

    try:
        click.echo(public_hex(create_key_file(out)))
    except OSError as error:
        raise AuthorityRefused(f"{out} cannot be made: {error.strerror}; choose another name") from error


@registry.command()
@click.argument("draft", type=_FILE)
@click.option("--federation", required=True, help="Its name, as `ssd-coordinator ca init` was told.")
def new(draft: Path, federation: str) -> None:
    """Begin the file DRAFT with nobody in it. A coordinator can start with that, signed, before any worker is enrolled."""
    from ssd.digest import canonical_json
    from ssd.trust.participants import registry_of
    from ssd.trust.private_files import replace_private

    if draft.exists():
        raise AuthorityRefused(f"{draft} is there already: add to it, or choose another name")
    body = _empty(federation)
    refusing(lambda: registry_of(body))
    replace_private(draft, canonical_json(body))
    click.echo(f"{draft}: nobody is entered yet; sign it with `ssd-coordinator registry sign`")


@registry.command()
@click.argument("draft", type=_FILE)
@click.argument("introduction", type=_FILE)
@click.option(
    "--clients", required=True, help="The clients it folds, separated by commas; it refuses any other."
)
@click.option(
    "--max-weight",
    type=click.IntRange(min=1),
    required=True,
    help="The most they may weigh together in a round: the worker refuses more clients than that allows.",
)
def add(draft: Path, introduction: Path, clients: str, max_weight: int) -> None:
    """Enter a worker in the file DRAFT, by what `ssd-worker identity init` printed; a worker of that name is replaced."""
    from ssd.digest import canonical_json
    from ssd.trust.participants import parse_canonical, registry_of
    from ssd.trust.private_files import replace_private

    told = refusing(lambda: parse_canonical(read_file(introduction).strip()))
    if not isinstance(told, dict) or set(told) != {"federation", "worker", "key", "proof"}:
        raise AuthorityRefused(f"{introduction} is not what `ssd-worker identity init` prints")
    body = _draft(draft, told["federation"]) if draft.exists() else _empty(told["federation"])
    others = [each for each in body["participants"] if each["worker"] != told["worker"]]
    entry = {
        "worker": told["worker"],
        "key": told["key"],
        "proof": told["proof"],
        "clients": sorted(filter(None, clients.split(","))),
        "max_weight": max_weight,
    }
    body["participants"] = sorted([*others, entry], key=lambda each: str(each["worker"]))
    refusing(lambda: registry_of(body))
    replace_private(draft, canonical_json(body))
    click.echo(f"{told['worker']} is entered; sign it with `ssd-coordinator registry sign`")


@registry.command("sign")
@click.argument("draft", type=_FILE)
@click.option("--key", "key_file", type=_FILE, required=True, help="What `registry keygen` made.")
@click.option("--out", type=_FILE, required=True, help="The signed file; one that is there is continued.")
def sign_registry(draft: Path, key_file: Path, out: Path) -> None:
    """Sign DRAFT as the next version of the file OUT."""
    from ssd.trust.participants import Registry, decode, encode, registry_of
    from ssd.trust.private_files import replace_private
    from ssd.trust.signing import public_hex, read_key_file

    key = refusing(lambda: read_key_file(key_file))
    drafted = refusing(lambda: registry_of(_json(draft)))
    version = 1
    if out.exists():
        version = refusing(lambda: decode(read_file(out), public_hex(key), drafted.federation)).version + 1
    signed = Registry(
        federation=drafted.federation,
        version=version,
        issued_at=int(time.time()),
        participants=drafted.participants,
    )
    replace_private(out, encode(signed, key))
    click.echo(
        f"{out}: version {version}, {len(signed.participants)} participants, signed by {public_hex(key)}"
    )


@registry.command()
@click.argument("file", type=_FILE)
@click.option("--signer", required=True, help="The signer's public key, 64 hex digits.")
@click.option("--federation", required=True, help="Whose registry it has to be.")
def verify(file: Path, signer: str, federation: str) -> None:
    """Check signature and content of a signed FILE."""
    from ssd.trust.participants import decode

    found = refusing(lambda: decode(read_file(file), signer, federation))
    click.echo(f"good: version {found.version}, {len(found.participants)} participants")


@registry.command()
@click.argument("file", type=_FILE)
@FORM
def show(file: Path, form: str) -> None:
    """Print a FILE, signed or a draft. Does not check the signature: that is what `verify` does."""
    from ssd.trust.participants import registry_of

    value = _json(file)
    body = value["registry"] if isinstance(value, dict) and "registry" in value else value
    found = refusing(lambda: registry_of(body))
    if form == "json":
        click.echo(json_text(body))
        return
    rows = [
        (each.worker, each.key[:16], each.max_weight, ",".join(each.clients) or "-")
        for each in found.participants
    ]
    click.echo(f"federation {printable(found.federation)}, version {found.version} (signature not checked)")
    click.echo(tables.table(("worker", "key", "weight", "clients"), rows))


def _empty(federation: Json) -> dict[str, Json]:
    from ssd.trust.participants import FORMAT

    return {"format": FORMAT, "federation": federation, "version": 1, "issued_at": 1, "participants": []}


def _draft(path: Path, federation: Json) -> dict[str, Json]:
    from ssd.trust.participants import registry_of

    body = _json(path)
    found = refusing(lambda: registry_of(body))
    if found.federation != federation:
        raise AuthorityRefused(
            f"{path} is of the federation {found.federation}, the introduction of {federation}"
        )
    return dict(body)


def _json(path: Path) -> Json:
    from ssd.trust.participants import parse_canonical

    return refusing(lambda: parse_canonical(read_file(path)))


def read_file(path: Path) -> bytes:
    """The content, or a little more than a signed file may have.

    Raises:
        AuthorityRefused: it cannot be read.
    """
    from ssd.trust.participants import MAX_BYTES

    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise AuthorityRefused(f"{path} cannot be read: {error.strerror}") from error


def refusing(work: Callable[[], T]) -> T:
    """What `work` gives; what it refuses, as the operator's fault."""
    from ssd.trust.signing import SigningRefused

    try:
        return work()
    except SigningRefused as error:
        raise AuthorityRefused(str(error)) from error
