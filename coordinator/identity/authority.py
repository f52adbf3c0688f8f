"""The federation's authority as files: made once, then asked for certificates on the machine that holds its key.

A folder of the authority holds `ca.pem`, `ca.key` and what the coordinator and its operator need. A folder of one
holder holds `ca.pem` and the holder's certificate and key, under the name its program looks for. Nothing that exists
is ever overwritten, and every file is private from the start.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.errors import AuthorityRefused
from ssd.files import sync_folder
from ssd.trust.authority import (
    CertificateRefused,
    Credential,
    create_authority,
    federation_of,
    fingerprint,
    issue,
    subject_of_certificate,
    validity,
)
from ssd.trust.names import NameRefused, Role, Subject
from ssd.trust.private_files import create_private, make_private_folder

AUTHORITY = "ca"
STEM = {
    Role.COORDINATOR: "coordinator",
    Role.OPERATOR: "operator",
    Role.OBSERVER: "operator",
    Role.WORKER: "worker",
    Role.EVALUATOR: "worker",
}
"""What a holder's files are called: as the program looks for them that the holder runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """A certificate, for people."""

    path: Path
    holder: str
    """The identity's URI; of an authority, its federation."""
    fingerprint: str
    """Hex SHA-256: of an authority, the pin that join tokens carry."""
    not_before: dt.datetime
    not_after: dt.datetime


def initialise(
    folder: Path,
    hosts: Sequence[str],
    *,
    federation: str,
    authority_days: float,
    certificate_days: float,
    now: dt.datetime,
) -> tuple[Path, ...]:
    """Makes an authority, the coordinator's credential and the first operator's.

    Args:
        folder: where; it may exist, the files may not.
        hosts: names and addresses the coordinator answers to.
        federation: the name every identity begins with.
        authority_days: how long the authority is valid.
        certificate_days: how long what it signs here is valid.
        now: aware time.

    Returns:
        The files.

    Raises:
        AuthorityRefused: a file exists, a name cannot stand in a certificate, or the folder cannot be written.
    """
    try:
        authority = create_authority(federation, days=authority_days, now=now)
        holders = {
            "coordinator": (Subject(federation, Role.COORDINATOR, "coordinator"), tuple(hosts)),
            "operator": (Subject(federation, Role.OPERATOR, "operator"), ()),
        }
        files = {f"{AUTHORITY}.pem": authority.certificate, f"{AUTHORITY}.key": authority.key}
        for stem, (subject, names) in holders.items():
            files |= _files(stem, issue(authority, subject, days=certificate_days, now=now, hosts=names))
    except (NameRefused, CertificateRefused, OverflowError) as error:
        raise AuthorityRefused(str(error)) from error
    return _write(folder, files, advice="an authority is made once: choose another folder with --out")


def issue_into(
    authority: Path,
    folder: Path,
    role: Role,
    name: str,
    *,
    hosts: Sequence[str] = (),
    days: float,
    now: dt.datetime,
) -> tuple[Path, ...]:
    """Issues a credential, key included, without the coordinator: for whoever cannot enrol.

    Args:
        authority: the authority's folder.
        folder: the holder's; it may exist, with the same authority's certificate in it.
        role: what the holder may be.
        name: the holder's.
        hosts: names and addresses a coordinator answers to.
        days: how long it is valid, at most until the authority's end.
        now: aware time.

    Returns:
        The files.

    Raises:
        AuthorityRefused: the authority cannot be used, or a file exists or cannot be written.
    """
    signer = load_authority(authority / f"{AUTHORITY}.pem", authority / f"{AUTHORITY}.key")
    if role is Role.COORDINATOR and not hosts:
        raise AuthorityRefused("say with --host by which names and addresses the coordinator is reached")
    try:
        subject = Subject(federation_of(signer.certificate), role, name)
        files = _files(STEM[role], issue(signer, subject, days=days, now=now, hosts=hosts))
    except (NameRefused, CertificateRefused, OverflowError) as error:
        raise AuthorityRefused(str(error)) from error
    own = folder / f"{AUTHORITY}.pem"
    if not own.exists():
        files[own.name] = signer.certificate
    elif read_file(own) != signer.certificate:
        raise AuthorityRefused(f"{own} is another authority's: choose another folder with --out")
    return _write(
        folder, files, advice="nothing was issued: move it away, or choose another folder with --out"
    )


def load_authority(certificate: Path, key: Path) -> Credential:
    """The authority's certificate and key, of one another.

    Raises:
        AuthorityRefused: a file is missing, is something else, or they do not belong together.
    """
    found = Credential(read_file(certificate), read_file(key))
    try:
        federation_of(found.certificate)
        matches = found.matches()
    except CertificateRefused as error:
        raise AuthorityRefused(f"{certificate}, {key}: {error}") from error
    if not matches:
        raise AuthorityRefused(
            f"{key} is not the key of {certificate}: use the two files that `ca init` made together"
        )
    return found


def describe(folder: Path) -> tuple[Described, ...]:
    """Every certificate in a folder, the authority's first.

    Raises:
        AuthorityRefused: there is none, or one cannot be read.
    """
    paths = sorted(folder.glob("*.pem"), key=lambda path: (path.stem != AUTHORITY, path.name))
    if not paths:
        raise AuthorityRefused(f"there is no certificate in {folder}: make an authority with `ca init`")
    return tuple(_described(path) for path in paths)


def read_file(path: Path) -> bytes:
    """A file of an authority's folder.

    Raises:
        AuthorityRefused: it is not there or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise AuthorityRefused(
            f"{path} does not exist: make an authority with `ca init`, or say where it is with --pki"
        ) from error
    except OSError as error:
        raise AuthorityRefused(f"{path} cannot be read: {error.strerror or error}") from error


def _described(path: Path) -> Described:
    content = read_file(path)
    try:
        own = path.stem == AUTHORITY
        not_before, not_after = validity(content)
        return Described(
            path=path,
            holder=federation_of(content) if own else subject_of_certificate(content).uri,
            fingerprint=fingerprint(content),
            not_before=not_before,
            not_after=not_after,
        )
    except CertificateRefused as error:
        raise AuthorityRefused(f"{path}: {error}") from error


def _files(stem: str, credential: Credential) -> dict[str, bytes]:
    return {f"{stem}.pem": credential.certificate, f"{stem}.key": credential.key}


def _write(folder: Path, files: Mapping[str, bytes], *, advice: str) -> tuple[Path, ...]:
    """All of them or none."""
    paths = {folder / name: data for name, data in files.items()}
    for path in paths:
        if path.is_symlink() or path.exists():
            raise AuthorityRefused(f"{path} exists; {advice}")
    written: list[Path] = []
    try:
        make_private_folder(folder)
        for path, data in paths.items():
            create_private(path, data)
            written.append(path)
        sync_folder(folder)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise AuthorityRefused(
            f"{error.filename or folder}: {error.strerror or error}: choose a folder you may write to with --out"
        ) from error
    return tuple(paths)
