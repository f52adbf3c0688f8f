"""What participants sign in level `active`, and whose key counts: the pinned registry's, nobody else's.

A signature covers a label, so that one made for an advert proves nothing about a survivor set, and the digest of the
offer, so that one made in an earlier round proves nothing in this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ssd.secagg.protocol.messages import Advert, SetSignature, Survivors, digest, encode
from ssd.trust.participants import Registry
from ssd.trust.signing import SigningRefused, check, sign

ADVERT = "ssd-secagg-advert-v1"
SURVIVORS = "ssd-secagg-survivors-v1"


def keys_of(registry: Registry | None) -> Mapping[str, str]:
    """Worker -> Ed25519 public key, hex; nobody without a registry."""
    return {} if registry is None else {each.worker: each.key for each in registry.participants}


def sign_advert(signer: Ed25519PrivateKey, offer_digest: bytes, advert: Advert) -> Advert:
    """The advert with its signature."""
    return replace(advert, signature=bytes.fromhex(sign(signer, ADVERT, _advert(offer_digest, advert))))


def advert_is_signed(key: str, offer_digest: bytes, advert: Advert) -> bool:
    """Whether `key` signed this advert for this offer."""
    return _is_signed(key, ADVERT, _advert(offer_digest, advert), advert.signature)


def sign_survivors(signer: Ed25519PrivateKey, name: str, survivors: Survivors) -> SetSignature:
    """A participant's word that it was shown this survivor set."""
    return SetSignature(name=name, signature=bytes.fromhex(sign(signer, SURVIVORS, digest(survivors))))


def survivors_are_signed(key: str, survivors: Survivors, signature: SetSignature) -> bool:
    """Whether `key` signed this survivor set."""
    return _is_signed(key, SURVIVORS, digest(survivors), signature.signature)


def _advert(offer_digest: bytes, advert: Advert) -> bytes:
    return offer_digest + encode(replace(advert, signature=b""))


def _is_signed(key: str, domain: str, content: bytes, signature: bytes) -> bool:
    try:
        check(key, domain, content, signature.hex())
    except SigningRefused:
        return False
    return True
