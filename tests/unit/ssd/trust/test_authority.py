"""Names in certificates, and the authority that signs them."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd.trust.authority import (
    CertificateRefused,
    create_authority,
    federation_of,
    fingerprint,
    issue,
    subject_of_certificate,
    validity,
)
from ssd.trust.names import NameRefused, Role, Subject, subject_of

NOW = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)


@given(NAMES, st.sampled_from(Role), NAMES)
def test_every_subject_reads_back_from_its_uri(federation: str, role: Role, name: str) -> None:
    subject = Subject(federation, role, name)
    assert Subject.parse(subject.uri) == subject


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "ssd://f/worker",
        "ssd://f/worker/a/b",
        "ssd://f/root/a",
        "SSD://f/worker/a",
        "ssd://f/worker/",
        "ssd://f/worker/a\0",
        "ssd://f/worker/a\n",
        "ssd://f/worker/%61",
        "ssd://f/worker/ä",
        "ssd:///worker/a",
        "ssd://f/WORKER/a",
        "https://f/worker/a",
        f"ssd://f/worker/{'a' * 65}",
    ],
)
def test_anything_else_is_nobody(uri: str) -> None:
    with pytest.raises(NameRefused):
        Subject.parse(uri)


def test_a_certificate_names_exactly_one_identity() -> None:
    one = Subject("f", Role.WORKER, "a").uri
    assert subject_of(["localhost", one]).name == "a"
    for names in ([], ["localhost"], [one, one], [one, "ssd:other"]):
        with pytest.raises(NameRefused, match="exactly one"):
            subject_of(names)


def test_an_authority_signs_leaves_of_its_own_federation() -> None:
    authority = create_authority("fed", days=10, now=NOW)
    worker = Subject("fed", Role.WORKER, "site-a")
    leaf = issue(authority, worker, days=1, now=NOW)
    assert federation_of(authority.certificate) == "fed"
    assert subject_of_certificate(leaf.certificate) == worker
    assert validity(leaf.certificate)[1] == NOW + dt.timedelta(days=1)
    assert len(fingerprint(authority.certificate)) == 64
    with pytest.raises(CertificateRefused, match="not of the federation 'fed'"):
        issue(authority, Subject("other", Role.WORKER, "a"), days=1, now=NOW)
    with pytest.raises(CertificateRefused, match="no authority"):
        federation_of(leaf.certificate)


def test_a_leaf_never_outlives_its_authority_and_a_dead_authority_signs_nothing() -> None:
    authority = create_authority("fed", days=2, now=NOW)
    worker = Subject("fed", Role.WORKER, "site-a")
    assert validity(issue(authority, worker, days=9, now=NOW).certificate)[1] == NOW + dt.timedelta(days=2)
    with pytest.raises(CertificateRefused, match="expired"):
        issue(authority, worker, days=9, now=NOW + dt.timedelta(days=3))


def test_what_is_no_certificate_is_refused() -> None:
    authority = create_authority("fed", days=2, now=NOW)
    for bad in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", authority.key):
        with pytest.raises(CertificateRefused):
            subject_of_certificate(bad)
    with pytest.raises(CertificateRefused, match="names nobody"):
        subject_of_certificate(authority.certificate)


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("under_score", "no underscore"),
        ("", "it is empty"),
        ("https://fed.example.org", "it is a URL"),
        ("fed.example.org:7443", "it has a port"),
        ("[::1]", "brackets"),
        ("[::1]:7443", "brackets"),
        ("*.example.org", "not patterns"),
        ("müller.example", "xn--"),
        ("fed.example.org.", "dot at its end"),
        ("a" * 64, "1 to 63"),
        (".".join(["a" * 60] * 5), "longer than 253"),
        ("-x.example", "no - at either end"),
        ("a..b", "1 to 63"),
        ("a b", "1 to 63"),
    ],
)
def test_what_is_no_host_is_told_why(host: str, why: str) -> None:
    authority = create_authority("fed", days=1, now=NOW)
    subject = Subject("fed", Role.COORDINATOR, "coordinator")
    with pytest.raises(CertificateRefused) as refused:
        issue(authority, subject, days=1, now=NOW, hosts=[host])
    text = str(refused.value)
    assert text.startswith(f"{host!r} is no host: ")
    assert why in text
    assert "give a name such as fed.example.org" in text
