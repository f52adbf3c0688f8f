"""Signing keys, a signed registry and pins for a few participants, as the commands make them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ssd.trust.participants import Participant, Registry, encode, introduce
from ssd.trust.private_files import make_private_folder
from ssd.trust.registry_pin import PIN_FILE, REGISTRY_FILE, SIGNING_KEY_FILE, Pin, create_pin
from ssd.trust.signing import create_key_file, public_hex
from worker.secure_aggregation.identity import SecureIdentity

FEDERATION = "test"


class SecureIdentities:
    """One folder for each worker: signing key, pin and registry."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.signer = Ed25519PrivateKey.generate()
        self.keys: dict[str, Ed25519PrivateKey] = {}
        for name in names:
            folder.mkdir(parents=True, exist_ok=True)
            make_private_folder(folder / name)
            self.keys[name] = create_key_file(folder / name / SIGNING_KEY_FILE)
            pin = Pin(federation=FEDERATION, signer=public_hex(self.signer))
            create_pin(folder / name / PIN_FILE, pin)
        self.registry = self.publish(1, names)

    def publish(
        self,
        version: int,
        names: Sequence[str],
        clients: Mapping[str, Sequence[str]] = {"w1": ("a", "b")},
        max_weight: int = 1 << 20,
    ) -> Registry:
        """A registry of these with their clients, signed and given to everybody."""
        entries = [introduce(FEDERATION, name, self.keys[name]) for name in sorted(names)]
        participants = tuple(
            Participant(
                worker=told["worker"],
                key=told["key"],
                proof=told["proof"],
                clients=tuple(clients.get(told["worker"], ())),
                max_weight=max_weight,
            )
            for told in entries
        )
        self.registry = Registry(
            federation=FEDERATION, version=version, issued_at=1, participants=participants
        )
        content = encode(self.registry, self.signer)
        for name in self.keys:
            (self.folder / name / REGISTRY_FILE).write_bytes(content)
        return self.registry

    def identity(self, name: str) -> SecureIdentity:
        return SecureIdentity(name=name, folder=self.folder / name)

    def forget(self, name: str, file: str) -> None:
        """Remove one file of a worker."""
        path = self.folder / name / file
        shutil.rmtree(path) if path.is_dir() else path.unlink()
