"""Whom this worker signs as and whom it believes, for secure aggregation at level `active`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ssd.trust.participants import Registry, RegistryRefused
from ssd.trust.policy.federation_policy import FederationPolicy, PolicyRefused
from ssd.trust.policy.policy_pin import POLICY_FILE, POLICY_PIN_FILE, accept_policy
from ssd.trust.registry_pin import PIN_FILE, REGISTRY_FILE, SIGNING_KEY_FILE, accept
from ssd.trust.signing import SigningRefused, public_hex, read_key_file


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureIdentity:
    """Files of a worker.

    Args:
        name: this worker's, as the registry has it.
        folder: with the signing key and the pin.
        registry: the signed registry; None: in the folder.
        policy: the signed federation policy; None: in the folder.
    """

    name: str
    folder: Path
    registry: Path | None = None
    policy: Path | None = None

    def load(self) -> tuple[Registry, Ed25519PrivateKey]:
        """The registry as it is now, checked against the pin, which moves on to it; and the signing key.

        Raises:
            SigningRefused: one of the files is missing, badly signed or older than one that was seen, or this worker
                does not stand in the registry with its key. The message says what to do.
        """
        path = self.registry or self.folder / REGISTRY_FILE
        key = self._key()
        if not (self.folder / PIN_FILE).exists():
            raise RegistryRefused(
                "this worker does not know who signs the registry of participants: run `ssd-worker identity init"
                " --signer KEY` with the key that `ssd-coordinator registry keygen` printed"
            )
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RegistryRefused(
                f"the signed registry of participants {path} cannot be read ({error.strerror}): put it there, or name it"
                " in [secure_aggregation] registry"
            ) from error
        try:
            found = accept(self.folder / PIN_FILE, content)
        except OSError as error:
            raise RegistryRefused(f"the pin in {self.folder} cannot be kept: {error.strerror}") from error
        own = [each for each in found.participants if each.worker == self.name]
        if not own or own[0].key != public_hex(key):
            raise RegistryRefused(
                f"the registry of participants {path} does not have {self.name} with this worker's signing key: have its"
                " signer enter what `ssd-worker identity show` prints"
            )
        return found, key

    def load_policy(self) -> FederationPolicy | None:
        """The federation policy as it is now, checked against its pin, which moves on to it; None: there never was one.

        Raises:
            SigningRefused: it is badly signed, older than one that was seen, or one was seen and is gone.
        """
        path = self.policy or self.folder / POLICY_FILE
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            if self.policy is None and not (self.folder / POLICY_PIN_FILE).exists():
                return None
            raise PolicyRefused(f"the signed federation policy {path} is gone: put it there again") from error
        except OSError as error:
            raise PolicyRefused(
                f"the signed federation policy {path} cannot be read: {error.strerror}"
            ) from error
        try:
            return accept_policy(self.folder, content)
        except OSError as error:
            raise PolicyRefused(f"the pin in {self.folder} cannot be kept: {error.strerror}") from error

    def missing(self) -> str:
        """Why this worker cannot take part in `active`, and what to do; empty: it can."""
        try:
            self.load()
        except SigningRefused as error:
            return str(error)
        return ""

    def _key(self) -> Ed25519PrivateKey:
        path = self.folder / SIGNING_KEY_FILE
        if not path.exists():
            raise SigningRefused("this worker has no signing key: make one with `ssd-worker identity init`")
        return read_key_file(path)
