"""Writes deploy/requirements/*.txt: what this environment has, with the hashes of every file an index offers of it.

    .venv/bin/python docs/tools/locked_versions.py    (make locks)

Run it in an environment that passed the suite: its versions are what is locked, for every Python and platform that has
the same ones. `uv` resolves; it is fetched by `make locks` and is no requirement of anything else. `torch.txt` holds
PyTorch and what only PyTorch brings, so that an image may take another build of it; `worker.txt` is the rest.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "requirements"
SETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "base": ("pyproject.toml",),
        "worker": ("pyproject.toml", "--extra", "worker", "--extra", "tracing"),
        "build": ("--group", "build"),
        "dev": ("pyproject.toml", "--extra", "all", "--group", "dev"),
        "supply": ("--group", "supply"),
    }
)
"""File -> what of pyproject.toml it locks."""
_TORCH = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-.*)==")
HEAD = "# Made by docs/tools/locked_versions.py (make locks): exactly these files, and no others.\n"


def entries(text: str) -> list[str]:
    """The requirements of a lock, each with its hashes."""
    return [
        each for each in re.split(r"(?m)^(?=[a-z0-9])", text) if not each.startswith("#") and each.strip()
    ]


def split_torch(text: str) -> tuple[list[str], list[str]]:
    """PyTorch's own part of a lock, and the rest."""
    found = entries(text)
    torch = [each for each in found if _TORCH.match(each)]
    return torch, [each for each in found if each not in torch]


def _installed() -> str:
    found = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    return "".join(f"{name}=={version.partition('+')[0]}\n" for name, version in sorted(found.items()))


def _locked(wanted: tuple[str, ...], constraints: Path) -> str:
    command = [
        "uv", "pip", "compile", "--universal", "--generate-hashes", "--quiet", "--no-header",
        "--no-annotate", "--python-version", "3.11", "--constraint", str(constraints), *wanted,
    ]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "installed.txt"
        constraints.write_text(_installed())
        try:
            locks = {name: _locked(wanted, constraints) for name, wanted in SETS.items()}
        except subprocess.CalledProcessError as error:
            sys.exit(error.stderr)
    torch, rest = split_torch(locks["worker"])
    written = {name: entries(text) for name, text in locks.items()} | {"torch": torch, "worker": rest}
    for name, found in written.items():
        (FOLDER / f"{name}.txt").write_text(HEAD + "".join(found))


if __name__ == "__main__":
    main()
