"""Of a certificate request only the key counts, and only with proof that whoever asks has it."""

from __future__ import annotations

import contextlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.trust.authority import CertificateRefused, new_key
from ssd.trust.requests import MAX_REQUEST_BYTES, key_digest, make_request, requested_key

KEY = new_key()
REQUEST = make_request(KEY)


def der(builder: x509.CertificateSigningRequestBuilder, key: object) -> bytes:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)  # type: ignore[arg-type]


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


@settings(max_examples=300)
@given(st.data())
def test_a_changed_or_truncated_request_never_gives_another_key(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(REQUEST) - 1))
    bit = data.draw(st.integers(0, 7))
    flipped = bytearray(REQUEST)
    flipped[place] ^= 1 << bit
    for changed in (REQUEST[:place], REQUEST + b"\0"):
        with pytest.raises(CertificateRefused):
            requested_key(changed)
    # Rarely, depending on the key, a flip is taken; it must then ask for the same key.
    with contextlib.suppress(CertificateRefused):
        assert requested_key(bytes(flipped)) == KEY.public_key()


@given(st.binary(max_size=600))
def test_anything_else_is_refused(junk: bytes) -> None:
    with pytest.raises(CertificateRefused):
        requested_key(junk)


def test_an_oversized_request_is_refused_before_it_is_read() -> None:
    with pytest.raises(CertificateRefused, match="too large"):
        requested_key(REQUEST + bytes(MAX_REQUEST_BYTES))
