"""deploy/requirements: what image, CI and `make LOCKED=1` install is listed whole, by version and hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import locked_versions

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = ("base", "worker", "torch", "build", "dev", "supply")
ENTRY = re.compile(
    r"([a-z0-9.-]+)==([^\s;]+)(?: ; [^\\]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)"
)


def lock(name: str) -> dict[str, str]:
    """Package -> the highest version that a lock lists."""
    text = (locked_versions.FOLDER / f"{name}.txt").read_text()
    found = {}
    for each in locked_versions.entries(text):
        match = ENTRY.fullmatch(each)
        assert match is not None, each[:200]
        found[match[1]] = max(match[2], found.get(match[1], ""), key=version)
    return found


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def wanted(requirements: list[object]) -> list[tuple[str, str, str]]:
    found = []
    for each in requirements:
        if isinstance(each, str) and not each.startswith(f"{PROJECT['project']['name']}["):
            match = re.match(r"([A-Za-z0-9.-]+)(>=|==)([^,]+)", each)
            assert match is not None, each
            found.append((match[1].lower(), match[2], match[3]))
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_line_is_a_version_with_its_hashes_and_names_no_index(name: str) -> None:
    text = (locked_versions.FOLDER / f"{name}.txt").read_text()
    assert text.startswith(locked_versions.HEAD)
    assert "://" not in text
    assert lock(name)


def test_what_pyproject_asks_for_is_locked_in_a_version_that_it_admits() -> None:
    project = PROJECT["project"]
    extras, groups = project["optional-dependencies"], PROJECT["dependency-groups"]
    image = lock("worker") | lock("torch")
    for found, requirements in (
        (lock("base"), project["dependencies"]),
        (image, [*project["dependencies"], *extras["worker"], *extras["tracing"]]),
        (lock("build"), groups["build"]),
        (lock("dev"), [*project["dependencies"], *(each for extra in extras.values() for each in extra), *groups["dev"]]),
        (lock("supply"), groups["supply"]),
    ):  # fmt: skip
        for package, relation, bound in wanted(requirements):
            assert package in found, package
            assert version(found[package]) >= version(bound), package
            assert relation != "==" or found[package] == bound, package


def test_the_base_has_nothing_of_pytorch_and_the_image_has_what_the_suite_has() -> None:
    assert not {"torch", "torchvision", "pillow", "scikit-learn", "matplotlib", "scipy"} & lock("base").keys()
    assert not lock("worker").keys() & lock("torch").keys()
    dev = lock("dev")
    for name in ("base", "worker", "torch", "build"):
        assert {package: dev.get(package) for package in lock(name)} == lock(name)


def test_a_lock_falls_into_pytorchs_part_and_the_rest() -> None:
    text = "# made\ntorch==2 \\\n    --hash=sha256:a\nnvidia-nccl-cu13==1 ; sys_platform == 'linux' \\\n    --hash=sha256:b\ntorchx==3 \\\n    --hash=sha256:c\n"
    torch, rest = locked_versions.split_torch(text)
    assert [each.split("==")[0] for each in torch] == ["torch", "nvidia-nccl-cu13"]
    assert rest == ["torchx==3 \\\n    --hash=sha256:c\n"]
