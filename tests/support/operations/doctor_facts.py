"""A doctor's findings, and configurations to examine."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

from ssd.daemon.doctor.findings import Finding
from ssd.trust.authority import Credential

GOOD_TORCH = {
    "torch": "2.13.0+cpu", "torchvision": "0.28.0", "torchvision_needs": "torch==2.13.0", "cuda_build": None,
    "devices": [], "computed": True, "device": "cpu",
}  # fmt: skip


def levels(found: Iterator[Finding] | list[Finding]) -> list[tuple[str, str]]:
    return [(each.check, each.level.value) for each in found]


def only(found: Iterator[Finding], check: str) -> Finding:
    (one,) = [each for each in found if each.check == check]
    return one


def now() -> dt.datetime:
    """Asked for when it is needed: a test process may import this file long before it makes the certificates."""
    return dt.datetime.now(dt.UTC)


def identity_in(folder: Path, authority: bytes, own: Credential, stem: str = "worker") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.pem").write_bytes(authority)
    (folder / f"{stem}.pem").write_bytes(own.certificate)
    key = folder / f"{stem}.key"
    key.write_bytes(own.key)
    key.chmod(0o600)
    return folder
