"""Who the coordinator takes a caller for."""

from __future__ import annotations

import pytest

from coordinator.errors import NotPermitted, Reason
from coordinator.identity.caller import CertificateIdentity, ClaimedIdentity
from ssd.trust.names import Role, Subject

WORKER = b"ssd://hospitals/worker/site-north"


def said(*uris: bytes, version: bytes | None = b"TLSv1.3") -> dict[str, list[bytes]]:
    """What gRPC says of a connection, as far as it matters."""
    versions = {} if version is None else {"ssl_tls_version": [version]}
    # The common name and host names are there too; nobody may be taken for them.
    return {
        "x509_common_name": [b"site-south"],
        "peer_dns": [b"ssd://hospitals/operator/root"],
        "x509_subject_alternative_name": [b"ssd://hospitals/operator/root", *uris],
        "peer_uri": list(uris),
        **versions,
    }


def refused(context: dict[str, list[bytes]]) -> Reason:
    with pytest.raises(NotPermitted) as caught:
        CertificateIdentity("hospitals").subject(context)
    return caught.value.reason


def test_the_certificates_one_identity_is_the_caller() -> None:
    assert CertificateIdentity("hospitals").subject(said(WORKER)) == Subject(
        "hospitals", Role.WORKER, "site-north"
    )


def test_names_of_other_kinds_do_not_count() -> None:
    assert (
        CertificateIdentity("hospitals").subject(said(b"https://site.example/", WORKER)).name == "site-north"
    )


@pytest.mark.parametrize(
    "uris", [(), (b"https://site.example/",), (WORKER, WORKER), (WORKER, b"ssd://x/y/z")]
)
def test_a_certificate_with_no_or_two_identities_names_nobody(uris: tuple[bytes, ...]) -> None:
    assert refused(said(*uris)) is Reason.NO_IDENTITY


@pytest.mark.parametrize(
    "uri", [b"ssd://hospitals/root/x", b"ssd://hospitals/worker/", b"ssd://hospitals/worker/a/b", b"ssd:\xff"]
)
def test_a_name_of_the_wrong_form_names_nobody(uri: bytes) -> None:
    assert refused(said(uri)) is Reason.NO_IDENTITY


def test_another_federations_member_is_a_stranger() -> None:
    assert refused(said(b"ssd://banks/worker/site-north")) is Reason.WRONG_FEDERATION


@pytest.mark.parametrize("version", [None, b"TLSv1.2", b"TLSv1.1", b"", b"TLSv1.3x"])
def test_anything_but_tls_1_3_is_refused_whoever_calls(version: bytes | None) -> None:
    assert refused(said(WORKER, version=version)) is Reason.TLS_VERSION


def test_without_tls_nobody_is_known() -> None:
    assert ClaimedIdentity().subject(said(WORKER)) is None
