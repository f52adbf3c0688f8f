"""An identity on disk: the authority's certificate, one's own and the key to it, read and checked together.

Everything TLS would later refuse without saying why is looked for here, where there is a person to tell.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ssd.trust.authority import (
    CertificateRefused,
    Credential,
    federation_of,
    is_signed_by,
    subject_of_certificate,
    validity,
)
from ssd.trust.names import Subject


class IdentityMissing(CertificateRefused):
    """There is no file yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentityFiles:
    """Where an identity lies, PEM."""

    authority: Path
    certificate: Path
    key: Path

    @classmethod
    def in_folder(cls, folder: Path, name: str) -> IdentityFiles:
        """`ca.pem`, `NAME.pem` and `NAME.key`."""
        return cls(
            authority=folder / "ca.pem", certificate=folder / f"{name}.pem", key=folder / f"{name}.key"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """A usable identity."""

    subject: Subject
    authority: bytes
    credential: Credential = field(repr=False)
    not_after: dt.datetime
    """When the first of the two certificates expires, aware."""


def read_identity(files: IdentityFiles, now: dt.datetime) -> Identity:
    """The identity in files that belong together and are valid.

    Args:
        files: where.
        now: aware time.

    Raises:
        IdentityMissing: a file is not there.
        CertificateRefused: a file cannot be read, is something else, has expired or does not go with the others.
    """
    authority, certificate, key = map(_read, (files.authority, files.certificate, files.key))
    with _naming(files.authority):
        federation = federation_of(authority)
        _check_dates(authority, now)
    with _naming(files.certificate):
        subject = subject_of_certificate(certificate)
        if not is_signed_by(certificate, authority) or subject.federation != federation:
            raise CertificateRefused(f"the authority in {files.authority} did not sign it")
        _check_dates(certificate, now)
    with _naming(files.key):
        if not Credential(certificate, key).matches():
            raise CertificateRefused(f"it is not the key of {files.certificate}")
    return Identity(
        subject=subject,
        authority=authority,
        credential=Credential(certificate, key),
        not_after=min(validity(authority)[1], validity(certificate)[1]),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise IdentityMissing(f"{path}: no such file") from error
    except OSError as error:
        raise CertificateRefused(f"{path}: cannot be read: {error.strerror}") from error


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Says which file a complaint is about."""
    try:
        yield
    except CertificateRefused as error:
        raise CertificateRefused(f"{path}: {error}") from error


def _check_dates(certificate: bytes, now: dt.datetime) -> None:
    start, end = validity(certificate)
    if now >= end:
        raise CertificateRefused(f"it expired on {end:%Y-%m-%d %H:%M} UTC")
    if now < start:
        raise CertificateRefused(
            f"it is valid from {start:%Y-%m-%d %H:%M} UTC on; is this host's clock right?"
        )
