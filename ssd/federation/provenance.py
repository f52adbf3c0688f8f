"""What a result was made with and on, for whoever wants to get it again."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

Json = Any
DIRTY = "-dirty"
"""What `git describe --dirty` ends with where tracked files differ from the commit."""
_PACKAGES = (
    "ssd-federated",
    "torch",
    "torchvision",
    "numpy",
    "scikit-learn",
    "grpcio",
    "protobuf",
    "safetensors",
)


def versions() -> dict[str, str]:
    """Python's and the packages' versions; a package that runs from a checkout has none."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, Json]:
    """What it ran on. No host name: the file is made to be passed on."""
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def processor_seconds() -> float:
    """User and system time so far of this process and of those it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def packages_digest() -> str:
    """SHA-256 over the name and version of every installed distribution: what a lock file would pin, as it is here."""
    names = {
        f"{each.metadata['Name'].lower().replace('_', '-')}=={each.version}"
        for each in metadata.distributions()
        if each.metadata["Name"]
    }
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def without_commit(code: str) -> bool:
    """Whether a `code_version` says that no commit holds the code."""
    return DIRTY in code


def code_words(code: str) -> str:
    """A `code_version` for a report."""
    return code.replace(DIRTY, " and changes that no commit holds") or "an installed package"


def code_version() -> str:
    """`git describe` of a checkout; empty for an installed package, or without git."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return ""
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--tags"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
