"""An identity on disk is read whole, and what is wrong with it is said."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from ssd.federation.identities import Identities
from ssd.trust.authority import CertificateRefused
from ssd.trust.identity_files import IdentityFiles, IdentityMissing, read_identity
from ssd.trust.names import Role, Subject

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def files(tmp_path: Path) -> IdentityFiles:
    return IdentityFiles.in_folder(Identities(tmp_path, NOW, "fed").worker("north"), "worker")


def test_files_that_belong_together_are_an_identity(files: IdentityFiles) -> None:
    found = read_identity(files, NOW)
    assert found.subject == Subject("fed", Role.WORKER, "north")
    assert found.authority == files.authority.read_bytes()
    assert found.not_after > NOW
    assert "PRIVATE KEY" in found.credential.key.decode()
    assert "PRIVATE KEY" not in repr(found)


@pytest.mark.parametrize("name", ["authority", "certificate", "key"])
def test_a_file_that_is_not_there_is_named(files: IdentityFiles, name: str) -> None:
    path: Path = getattr(files, name)
    path.unlink()
    with pytest.raises(IdentityMissing, match=f"{path}: no such file"):
        read_identity(files, NOW)


@pytest.mark.parametrize("name", ["authority", "certificate", "key"])
def test_a_file_that_is_something_else_is_named(files: IdentityFiles, name: str) -> None:
    path: Path = getattr(files, name)
    path.write_bytes(b"-----BEGIN NOTHING-----\n")
    with pytest.raises(CertificateRefused, match=str(path)):
        read_identity(files, NOW)


def test_files_of_different_origin_do_not_go_together(files: IdentityFiles, tmp_path: Path) -> None:
    other = IdentityFiles.in_folder(Identities(tmp_path / "other", NOW, "fed").worker("north"), "worker")
    key = files.key.read_bytes()
    files.key.write_bytes(other.key.read_bytes())
    with pytest.raises(CertificateRefused, match=f"{files.key}: it is not the key of {files.certificate}"):
        read_identity(files, NOW)
    files.key.write_bytes(key)
    files.authority.write_bytes(other.authority.read_bytes())
    with pytest.raises(CertificateRefused, match=f"{files.certificate}: the authority .* did not sign it"):
        read_identity(files, NOW)


def test_dates_are_looked_at(files: IdentityFiles) -> None:
    with pytest.raises(CertificateRefused, match="it expired on 2030-01-31"):
        read_identity(files, NOW + dt.timedelta(days=31))
    with pytest.raises(CertificateRefused, match="is this host's clock right"):
        read_identity(files, NOW - dt.timedelta(days=1))


def test_a_leaf_is_no_authority(files: IdentityFiles) -> None:
    files.authority.write_bytes(files.certificate.read_bytes())
    with pytest.raises(CertificateRefused, match=r"this is no authority's certificate"):
        read_identity(files, NOW)


def test_nobody_else_can_read_the_keys(files: IdentityFiles) -> None:
    assert files.key.stat().st_mode & 0o077 == 0
    assert files.key.parent.stat().st_mode & 0o077 == 0
