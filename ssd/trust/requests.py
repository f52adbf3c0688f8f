"""Asking for a certificate without giving the key away (PKCS #10, RFC 2986).

Of a request only two things count: the key, which must be of the one kind this federation uses, and the signature,
which shows that whoever asks has it. Names and extensions are neither written nor read: who somebody is, is what the
authority knows, not what is asked for.
"""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ssd.trust.authority import CertificateRefused, subject_of_certificate
from ssd.trust.names import Subject

MAX_REQUEST_BYTES = 4096
"""A P-256 request has about 200."""


def make_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The DER request for a key."""
    request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """The key a DER request proves the possession of.

    Raises:
        CertificateRefused: it is too large or no request, its key is no P-256 key, or its signature is not that key's.
    """
    if len(request) > MAX_REQUEST_BYTES:
        raise CertificateRefused(f"a certificate request of {len(request)} bytes is too large")
    try:
        found = x509.load_der_x509_csr(request)
        key = found.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise CertificateRefused("a certificate request here is for a P-256 key")
        signed = found.is_signature_valid
    except CertificateRefused:
        raise
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise CertificateRefused("this is no certificate request") from error
    if not signed:
        raise CertificateRefused("the certificate request is not signed by its own key")
    return key


def check_issued(
    certificate: bytes, authority: bytes, subject: Subject, key: ec.EllipticCurvePublicKey
) -> None:
    """Refuses an answer to a request that is not what was asked for. Dates are not looked at.

    Args:
        certificate: PEM.
        authority: PEM of who should have signed it.
        subject: whom it should name.
        key: what it should be over.

    Raises:
        CertificateRefused: it is something else.
    """
    if subject_of_certificate(certificate) != subject:
        raise CertificateRefused(
            f"the certificate names {subject_of_certificate(certificate).uri}, not {subject.uri}"
        )
    found = x509.load_pem_x509_certificate(certificate)
    if found.public_key() != key:
        raise CertificateRefused("the certificate is over another key than the one it was asked for")
    try:
        found.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CertificateRefused("another authority signed the certificate") from error


def key_digest(key: ec.EllipticCurvePublicKey) -> str:
    """Hex SHA-256 of a public key (DER, SubjectPublicKeyInfo)."""
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()
