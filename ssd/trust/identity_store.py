"""Putting a new certificate and its key in the place of the old ones, so that no crash leaves half of each.

A key is written, flushed to the disk, before anybody is asked to sign for it: `worker.key.new`. When the certificate
comes it takes its place first, then the key does. A crash in between leaves the new certificate, the old key, and the
new key beside them: `recover` finishes what was begun. Before the certificate took its place, the old pair is whole,
and the waiting key is used for the next request, so that a lost answer can be asked for again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssd.files import sync_folder
from ssd.trust.authority import (
    CertificateRefused,
    Credential,
    PrivateKey,
    key_pem,
    new_key,
    private_key,
)
from ssd.trust.private_files import make_private_folder, replace_private


@dataclass(frozen=True, slots=True)
class IdentityStore:
    """`ca.pem`, `NAME.pem` and `NAME.key` of a folder."""

    folder: Path
    name: str = "worker"

    @property
    def authority(self) -> Path:
        """Where the authority's certificate lies."""
        return self.folder / "ca.pem"

    @property
    def certificate(self) -> Path:
        """Where the own certificate lies."""
        return self.folder / f"{self.name}.pem"

    @property
    def key(self) -> Path:
        """Where the key to it lies."""
        return self.folder / f"{self.name}.key"

    @property
    def waiting_key(self) -> Path:
        """Where a key waits for its certificate."""
        return self.folder / f"{self.name}.key.new"

    def recover(self) -> None:
        """Finish an installation that a crash cut short; nothing to do otherwise.

        Raises:
            OSError: the folder cannot be written.
        """
        if not self.waiting_key.exists() or not self.certificate.exists():
            return
        try:
            waiting = Credential(self.certificate.read_bytes(), self.waiting_key.read_bytes())
            unfinished = waiting.matches()
        except CertificateRefused:
            return
        if unfinished:
            self.waiting_key.replace(self.key)
            sync_folder(self.folder)

    def key_to_be(self) -> PrivateKey:
        """The key to ask a certificate for: the one that waits, or a new one that from now on does.

        Raises:
            OSError: the folder cannot be written.
        """
        make_private_folder(self.folder)
        self.recover()
        try:
            return private_key(self.waiting_key.read_bytes())
        except (FileNotFoundError, CertificateRefused):
            key = new_key()
            replace_private(self.waiting_key, key_pem(key))
            return key

    def install(self, certificate: bytes, authority: bytes | None = None) -> None:
        """Put the certificate of the waiting key in place, and the key with it.

        Args:
            certificate: PEM.
            authority: PEM of whoever signed it; None: the one that is there.

        Raises:
            CertificateRefused: it is not the waiting key's.
            OSError: the folder cannot be written; the old pair is whole.
        """
        if not Credential(certificate, self.waiting_key.read_bytes()).matches():
            raise CertificateRefused("the certificate is not of the key it was asked for")
        if authority is not None:
            replace_private(self.authority, authority)
        replace_private(self.certificate, certificate)
        self.recover()
