"""What a worker keeps of the registry of participants: its signer's key, given once, and the newest version it saw."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ssd.digest import canonical_json
from ssd.trust.participants import Registry, RegistryRefused, decode, parse_canonical
from ssd.trust.private_files import replace_private
from ssd.trust.signing import KEY_BYTES, is_hex

SIGNING_KEY_FILE = "signing.key"
PIN_FILE = "participants.pin"
REGISTRY_FILE = "participants.json"
"""Names in a worker's identity folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """Whom a worker believes about participants, and what it has seen of him."""

    federation: str
    signer: str
    """Public key, 64 hex digits."""
    version: int = 0
    """The newest version seen; 0: none yet."""
    digest: str = ""
    """Hex SHA-256 of that version's file."""


def create_pin(path: Path, pin: Pin) -> None:
    """Begin to believe a signer.

    Raises:
        RegistryRefused: the key is none, or another signer is pinned here already.
    """
    if not is_hex(pin.signer, KEY_BYTES):
        raise RegistryRefused(
            "the signer's key is 64 lower-case hex digits: take what `registry keygen` printed"
        )
    if path.exists():
        before = read_pin(path)
        if (before.federation, before.signer) != (pin.federation, pin.signer):
            raise RegistryRefused(
                f"{path} pins another signer ({before.signer[:16]}…); remove it if the signer has really changed"
            )
        return
    write_pin(path, pin)


def read_pin(path: Path) -> Pin:
    """The pin of a file.

    Raises:
        RegistryRefused: it cannot be read.
    """
    try:
        value = parse_canonical(path.read_bytes())
        return Pin(**value)
    except (OSError, TypeError) as error:
        raise RegistryRefused(f"{path} is no pin of a registry: {error}") from error


def accept(path: Path, content: bytes) -> Registry:
    """The registry of a signed file, if the pin allows it; the pin moves on before this returns.

    Raises:
        RegistryRefused: badly signed, another federation's, older than one that was seen, or another one with the same
            number.
    """
    pin = read_pin(path)
    registry = decode(content, pin.signer, pin.federation)
    digest = hashlib.sha256(content).hexdigest()
    if registry.version < pin.version:
        raise RegistryRefused(
            f"registry version {registry.version} is older than version {pin.version}, which this worker has seen"
        )
    if registry.version == pin.version and digest != pin.digest:
        raise RegistryRefused(
            f"there are two registries of version {pin.version}: its signer must say which counts"
        )
    if registry.version > pin.version:
        write_pin(
            path,
            Pin(federation=pin.federation, signer=pin.signer, version=registry.version, digest=digest),
        )
    return registry


def write_pin(path: Path, pin: Pin) -> None:
    """Replace the file."""
    value = {"federation": pin.federation, "signer": pin.signer, "version": pin.version, "digest": pin.digest}
    replace_private(path, canonical_json(value))
