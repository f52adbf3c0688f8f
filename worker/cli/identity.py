"""`ssd-worker identity init|show`: the key this worker signs with. It never leaves the worker's identity folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.errors import IdentityUnusable

if TYPE_CHECKING:
    from worker.config.sections import WorkerConfig

Load = Callable[..., "WorkerConfig"]


def identity_group(load: Load, settings: Callable[..., Any]) -> click.Group:
    """The commands, with the options and the configuration of the other ones."""

    @click.group()
    def identity() -> None:
        """The key this worker signs with."""

    @identity.command("init")
    @settings
    @click.option("--signer", help="Public key that signs the registry of participants; it is pinned.")
    def init(signer: str | None, **options: Any) -> None:
        """Make the signing key, if there is none, and print what `ssd-coordinator registry add` takes."""
        from ssd.trust.registry_pin import SIGNING_KEY_FILE

        config = load(**options)
        folder = config.identity_dir
        path = folder / SIGNING_KEY_FILE
        _introduce(folder, make=not path.exists())
        if signer is not None:
            _pin(folder, signer)

    @identity.command("show")
    @settings
    def show(**options: Any) -> None:
        """Print the public part again."""
        _introduce(load(**options).identity_dir, make=False)

    return identity


def _introduce(folder: Path, *, make: bool) -> None:
    from ssd.digest import canonical_json
    from ssd.trust.participants import introduce
    from ssd.trust.private_files import make_private_folder
    from ssd.trust.registry_pin import SIGNING_KEY_FILE
    from ssd.trust.signing import SigningRefused, create_key_file, read_key_file

    federation, worker = _holder(folder)
    try:
        if make:
            make_private_folder(folder)
            create_key_file(folder / SIGNING_KEY_FILE)
        told = introduce(federation, worker, read_key_file(folder / SIGNING_KEY_FILE))
    except (SigningRefused, OSError) as error:
        raise IdentityUnusable(f"{error}. Make a signing key with `ssd-worker identity init`") from error
    click.echo(canonical_json(told).decode())


def _pin(folder: Path, signer: str) -> None:
    from ssd.trust.registry_pin import PIN_FILE, Pin, create_pin
    from ssd.trust.signing import SigningRefused

    try:
        create_pin(folder / PIN_FILE, Pin(federation=_holder(folder)[0], signer=signer))
    except (SigningRefused, OSError) as error:
        raise IdentityUnusable(str(error)) from error


def _holder(folder: Path) -> tuple[str, str]:
    """Federation and name in the worker's certificate: a key is of somebody."""
    from ssd.trust.authority import CertificateRefused, subject_of_certificate

    try:
        subject = subject_of_certificate((folder / "worker.pem").read_bytes())
    except (OSError, CertificateRefused) as error:
        raise IdentityUnusable(
            f"{folder} has no usable certificate ({error}): run `ssd-worker enroll` first"
        ) from error
    return subject.federation, subject.name
