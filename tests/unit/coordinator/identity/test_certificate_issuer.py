"""Whether a coordinator issues certificates: whether it can read the authority's key, and when that must be said."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from coordinator.config.sections import CoordinatorConfig, load
from coordinator.errors import AuthorityRefused, ConfigInvalid
from coordinator.identity.authority import initialise
from coordinator.identity.enrolment import CertificateIssuer, open_issuer
from coordinator.runtime.clock import SystemClock
from coordinator.store.trust import SqliteTrust
from coordinator.telemetry.metrics import CoordinatorMetrics


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    initialise(
        tmp_path / "pki",
        ["h"],
        federation="f",
        authority_days=10,
        certificate_days=1,
        now=dt.datetime.now(dt.UTC),
    )
    path = tmp_path / "coordinator.toml"
    path.write_text("")
    return path


IssuerPlace = Callable[[CoordinatorConfig], CertificateIssuer | None]


async def bind(worker: str, clients: Sequence[str]) -> None:
    """Nobody is bound here."""


@pytest.fixture
def issuer(tmp_path: Path) -> IssuerPlace:
    """Makes the issuer of a configuration."""
    return lambda config: open_issuer(
        config.transport, config.enrolment, SqliteTrust(tmp_path), bind, SystemClock(), CoordinatorMetrics()
    )


def configured(path: Path, **changes: Any) -> CoordinatorConfig:
    return load(path, {key.replace("__", "."): value for key, value in changes.items()}, {})


def test_the_key_is_looked_for_beside_the_configuration_and_renewing_needs_no_open_port(
    config_file: Path,
    issuer: IssuerPlace,
) -> None:
    found = issuer(configured(config_file))
    assert found is not None
    assert found.authority == (config_file.parent / "pki" / "ca.pem").read_bytes()


def test_without_the_key_nothing_is_issued_and_that_is_no_error_unless_hosts_are_to_enrol(
    config_file: Path,
    issuer: IssuerPlace,
) -> None:
    (config_file.parent / "pki" / "ca.key").unlink()
    assert issuer(configured(config_file)) is None
    with pytest.raises(AuthorityRefused, match=r"ca\.key does not exist.*ca init"):
        issuer(configured(config_file, enrolment__listen="127.0.0.1:0"))


def test_a_key_that_is_not_the_authoritys_is_refused(config_file: Path, issuer: IssuerPlace) -> None:
    pki = config_file.parent / "pki"
    (pki / "ca.key").write_bytes((pki / "operator.key").read_bytes())
    with pytest.raises(AuthorityRefused, match="not the key of"):
        issuer(configured(config_file))


def test_without_tls_nobody_enrols(config_file: Path, issuer: IssuerPlace) -> None:
    assert issuer(configured(config_file, transport__insecure=True)) is None
    with pytest.raises(ConfigInvalid, match=r"\[enrolment\] listen: without TLS"):
        configured(config_file, transport__insecure=True, enrolment__listen="127.0.0.1:7444")


@pytest.mark.parametrize("listen", ["unix:/run/x", "7444", "host"])
def test_the_enrolment_port_is_reached_over_the_network(config_file: Path, listen: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"\[enrolment\] listen"):
        configured(config_file, enrolment__listen=listen)
