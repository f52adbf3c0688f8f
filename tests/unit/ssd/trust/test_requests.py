"""Of a certificate request only the key counts, and only with proof that whoever asks has it."""

from __future__ import annotations

import contextlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from ssd.trust.authority import CertificateRefused, new_key
from ssd.trust.requests import MAX_REQUEST_BYTES, key_digest, make_request, requested_key

KEY = new_key()
REQUEST = make_request(KEY)


def der(builder: x509.CertificateSigningRequestBuilder, key: object) -> bytes:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)  # type: ignore[arg-type]


def signature_length(request: bytes) -> int:
    """Octets of the signature, which is the last thing in a request."""
    return len(x509.load_der_x509_csr(request).signature)


def test_a_request_gives_its_key_back() -> None:
    assert requested_key(REQUEST) == KEY.public_key()
    assert len(REQUEST) < MAX_REQUEST_BYTES / 8
    assert (
        key_digest(requested_key(REQUEST))
        == key_digest(KEY.public_key())
        != key_digest(new_key().public_key())
    )


def test_names_and_extensions_asked_for_are_ignored() -> None:
    root = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "operator")])
    wishes = (
        x509.CertificateSigningRequestBuilder(root)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("ssd://f/operator/root")]),
            critical=False,
        )
    )
    assert requested_key(der(wishes, KEY)) == KEY.public_key()


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256K1()),
    ],
    ids=["rsa", "ed25519", "p-384", "secp256k1"],
)
def test_keys_of_other_kinds_are_refused(key: object) -> None:
    with pytest.raises(CertificateRefused, match="P-256"):
        requested_key(der(x509.CertificateSigningRequestBuilder(x509.Name([])), key))


def test_another_keys_signature_is_refused() -> None:
    own, other = REQUEST, make_request(new_key())
    public = KEY.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    foreign = requested_key(other).public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    with pytest.raises(CertificateRefused, match="not signed by its own key"):
        requested_key(own.replace(public, foreign))


@pytest.mark.parametrize("key", [KEY, *(new_key() for _ in range(3))], ids=range(4))
def test_no_changed_or_truncated_request_is_taken(key: ec.EllipticCurvePrivateKey) -> None:
    """Every bit and every length of it, but for one octet in which a change means nothing.

    The signature is a BIT STRING, whose first octet counts the unused bits at its end (X.690, 8.6.2.2). DER has it
    0 here; the parser takes any number up to 7 if so many bits at the end are 0, and a signature ends as chance will
    have it. It is the same signature over the same key. Of what is signed, no bit can change.
    """
    request = make_request(key)
    unused = len(request) - signature_length(request) - 1
    assert request[unused] == 0
    zeros = (request[-1] & -request[-1]).bit_length() - 1 if request[-1] else 8
    for place in range(len(request)):
        with pytest.raises(CertificateRefused):
            requested_key(request[:place])
        for bit in range(8):
            flipped = bytearray(request)
            flipped[place] ^= 1 << bit
            if place == unused and 1 << bit <= min(zeros, 7):
                with contextlib.suppress(CertificateRefused):  # by a stricter parser
                    assert requested_key(bytes(flipped)) == key.public_key()
            else:
                with pytest.raises(CertificateRefused):
                    requested_key(bytes(flipped))
    with pytest.raises(CertificateRefused):
        requested_key(request + b"\0")


@given(st.binary(max_size=600))
def test_anything_else_is_refused(junk: bytes) -> None:
    with pytest.raises(CertificateRefused):
        requested_key(junk)


def test_an_oversized_request_is_refused_before_it_is_read() -> None:
    with pytest.raises(CertificateRefused, match="too large"):
        requested_key(REQUEST + bytes(MAX_REQUEST_BYTES))
