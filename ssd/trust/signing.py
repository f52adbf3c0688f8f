"""Signing keys (Ed25519, RFC 8032): in files, as hex, and what every signature of ours is about.

A signature always covers a domain, so that what was signed for one purpose proves nothing for another.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ssd.trust.private_files import create_private

KEY_BYTES = 32
SIGNATURE_BYTES = 64


class SigningRefused(ValueError):
    """A key, signature or signed file that cannot be used; the message says why and what to do."""


def create_key_file(path: Path) -> Ed25519PrivateKey:
    """A new key, PKCS#8 PEM in a new file of mode 0600.

    Raises:
        FileExistsError: there is one; it is left as it is.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    create_private(path, pem)
    return key


def read_key_file(path: Path) -> Ed25519PrivateKey:
    """The key of a file.

    Raises:
        SigningRefused: it cannot be read or holds no such key.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise SigningRefused(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise SigningRefused(f"{path} is no private key in PEM form: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningRefused(f"{path} is a private key, but not an Ed25519 one")
    return key


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public part, 64 hex digits."""
    return key.public_key().public_bytes_raw().hex()


def is_hex(text: object, nbytes: int) -> bool:
    """Whether it is exactly this many bytes in lower-case hex."""
    return (
        isinstance(text, str) and len(text) == 2 * nbytes and all(each in "0123456789abcdef" for each in text)
    )


def sign(key: Ed25519PrivateKey, domain: str, content: bytes) -> str:
    """The signature of `content` for a purpose, 128 hex digits."""
    return key.sign(_covered(domain, content)).hex()


def check(public: str, domain: str, content: bytes, signature: str) -> None:
    """Refuse a signature that `public` did not make.

    Raises:
        SigningRefused: it did not, or one of the two is not even a key or a signature.
    """
    if not is_hex(public, KEY_BYTES) or not is_hex(signature, SIGNATURE_BYTES):
        raise SigningRefused("a key is 64 and a signature 128 lower-case hex digits")
    try:
        verifier = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        verifier.verify(bytes.fromhex(signature), _covered(domain, content))
    except (InvalidSignature, ValueError) as error:
        raise SigningRefused(f"the signature is not one of the key {public[:16]}…") from error


def _covered(domain: str, content: bytes) -> bytes:
    return domain.encode() + b"\0" + content
