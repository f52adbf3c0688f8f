"""A new identity takes the old one's place whole, wherever the process dies."""

from __future__ import annotations

import datetime as dt
import os
import stat
from pathlib import Path

import pytest

from ssd.trust.authority import CertificateRefused, Credential, create_authority, issue, new_key
from ssd.trust.identity_store import IdentityStore
from ssd.trust.names import Role, Subject

NOW = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
AUTHORITY = create_authority("f", days=10, now=NOW)
WORKER = Subject("f", Role.WORKER, "w")


class Death(BaseException):
    """Stands for the end of the process."""


def renew(store: IdentityStore) -> bytes:
    key = store.key_to_be()
    certificate = issue(AUTHORITY, WORKER, days=1, now=NOW, public_key=key.public_key()).certificate
    store.install(certificate, AUTHORITY.certificate)
    return certificate


def pair(store: IdentityStore) -> Credential:
    return Credential(store.certificate.read_bytes(), store.key.read_bytes())


def test_the_first_identity_is_three_private_files(tmp_path: Path) -> None:
    store = IdentityStore(tmp_path / "identity")
    certificate = renew(store)
    assert pair(store).certificate == certificate
    assert pair(store).matches()
    assert sorted(path.name for path in store.folder.iterdir()) == ["ca.pem", "worker.key", "worker.pem"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in store.folder.iterdir()} == {0o600}
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


def test_a_key_waits_until_its_certificate_comes_and_is_asked_for_again(tmp_path: Path) -> None:
    store = IdentityStore(tmp_path)
    first = store.key_to_be()
    assert store.key_to_be().public_key() == first.public_key()
    renew(store)
    assert store.key_to_be().public_key() != first.public_key()


def test_wherever_the_process_dies_the_pair_is_old_or_new_and_the_next_attempt_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = {name: getattr(os, name) for name in ("fsync", "replace", "rename", "open")}
    done, step = False, 0
    while not done:
        step += 1
        store = IdentityStore(tmp_path / str(step))
        renew(store)
        calls = 0

        def dying(name: str, step: int = step) -> object:
            def call(*arguments: object, **keywords: object) -> object:
                nonlocal calls
                calls += 1
                if calls == step:
                    raise Death
                return real[name](*arguments, **keywords)

            return call

        for name in real:
            monkeypatch.setattr(os, name, dying(name))
        try:
            renew(store)
            done = True
        except Death:
            pass
        monkeypatch.undo()
        store.recover()
        found = pair(store)
        assert found.matches(), f"died at step {step}"
        renew(store)
        assert pair(store).matches()
    assert step > 8


def test_another_keys_certificate_is_not_installed(tmp_path: Path) -> None:
    store = IdentityStore(tmp_path)
    renew(store)
    before = pair(store)
    store.key_to_be()
    other = issue(AUTHORITY, WORKER, days=1, now=NOW, public_key=new_key().public_key()).certificate
    with pytest.raises(CertificateRefused):
        store.install(other)
    assert pair(store) == before


def test_a_waiting_key_that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    store = IdentityStore(tmp_path)
    renew(store)
    store.waiting_key.write_bytes(b"half a k")
    store.recover()
    assert pair(store).matches()
    renew(store)
    assert pair(store).matches()
