"""Versions of what is installed, and what torch is worth here."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from ssd.daemon.child_process import environment, python
from ssd.daemon.doctor.disk import size
from ssd.daemon.doctor.findings import Finding, fault, ok, warning

Json = Any
DISTRIBUTION = "ssd-federated"
PROTOCOL = 1
"""The version of the protocol that this software speaks."""
LITTLE_GPU_MEMORY = 2 << 30
_SPEC = re.compile(r"(>=|<=|==|<|>)\s*([0-9.]+)")


def examine_software(patience: float, device: str) -> Iterator[Finding]:
    """Findings `versions` and `gpu`.

    Args:
        patience: seconds for one check.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; "" for a daemon that trains nothing, whose method host imports torch all
            the same.
    """
    yield from judge_versions(*installed(), PROTOCOL)
    yield from judge_torch(gather_torch(device or "cpu", patience), device)


def installed() -> tuple[list[str], dict[str, str]]:
    """What a daemon needs ("grpcio>=1.85"), and the version of each that is there."""
    try:
        needs = needs_of_a_daemon(metadata.requires(DISTRIBUTION) or [])
    except metadata.PackageNotFoundError:
        return [], {}
    found = {}
    for need in needs:
        try:
            found[_name(need)] = metadata.version(_name(need))
        except metadata.PackageNotFoundError:
            continue
    return needs, found


def needs_of_a_daemon(requires: list[str]) -> list[str]:
    """The base installation's requirements and those of the extra `worker`, without their markers.

    The coordinator's method host makes the first model with PyTorch, so it needs that extra, too.

    Args:
        requires: as package metadata has them: `numpy>=1.26`, or `torch>=2.6; extra == "worker"`.
    """
    found = []
    for each in requires:
        need, _, marker = (part.strip() for part in each.partition(";"))
        if not marker or marker.replace("'", '"') == 'extra == "worker"':
            found.append(need)
    return found


def judge_versions(needs: list[str], found: Mapping[str, str], protocol: int) -> Iterator[Finding]:
    """Finding `versions`, of packages.

    Args:
        needs: requirements.
        found: package -> version.
        protocol: which version of the protocol this software speaks.
    """
    if not needs:
        yield warning(
            "versions", f"{DISTRIBUTION} runs from source, so what it needs is not known", "pip install it"
        )
        return
    wrong = False
    for need in needs:
        name, version = _name(need), found.get(_name(need))
        if version is None:
            wrong = True
            yield fault("versions", f"{name} is not installed", f'pip install "{need}"')
        elif not _fits(version, need):
            wrong = True
            yield fault(
                "versions", f"{name} {version} is installed, {need} is needed", f'pip install "{need}"'
            )
    if not wrong:
        shown = ", ".join(
            f"{name} {found[name]}"
            for name in ("grpcio", "protobuf", "torch", "torchvision")
            if name in found
        )
        yield ok("versions", f"protocol {protocol}; {shown}; all {len(needs)} packages fit")


def _name(need: str) -> str:
    return re.split(r"[<>=!~\[(; ]", need, maxsplit=1)[0]


def _fits(version: str, need: str) -> bool:
    here = _numbers(version)
    for sign, text in _SPEC.findall(need):
        there = _numbers(text)
        length = max(len(here), len(there))
        a, b = here + (0,) * (length - len(here)), there + (0,) * (length - len(there))
        if not {">=": a >= b, "<=": a <= b, "==": a == b, "<": a < b, ">": a > b}[sign]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))


def gather_torch(device: str, patience: float) -> dict[str, Json]:
    """What `ssd.torch_support.torch_probe` tells; {"failed": why} or {"late": seconds} if it tells nothing."""
    try:
        done = subprocess.run(
            python("-m", "ssd.torch_support.torch_probe", device),
            env=environment(),
            capture_output=True,
            timeout=patience,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"late": patience}
    lines = done.stdout.decode(errors="replace").splitlines()
    try:
        told = json.loads(lines[-1])
    except (ValueError, IndexError):
        words = done.stderr.decode(errors="replace").strip().splitlines()
        return {"failed": words[-1] if words else f"exit code {done.returncode}"}
    return told if isinstance(told, dict) else {"failed": "it told nothing"}


def judge_torch(told: Mapping[str, Json], device: str) -> Iterator[Finding]:
    """Findings `versions` (torch beside torchvision) and `gpu`.

    Args:
        told: as `gather_torch` gives it.
        device: `worker.device`, or "" for a host that trains nothing.
    """
    if "late" in told:
        yield warning(
            "versions", f"torch was not imported within {told['late']:g} s",
            "look again with a larger --patience; the first import after an installation takes longest",
        )  # fmt: skip
        return
    if "failed" in told:
        yield fault("versions", f"torch cannot be imported: {told['failed']}", "install torch again")
        return
    yield _torchvision(told)
    if device:
        yield from _device(told, device)


def _torchvision(told: Mapping[str, Json]) -> Finding:
    torch, error = str(told["torch"]), told.get("torchvision_error")
    if error is not None:
        return fault(
            "versions", f"torchvision cannot be imported beside torch {torch}: {error}",
            "install torch and torchvision together and from the same index",
        )  # fmt: skip
    vision = str(told["torchvision"])
    needs = str(told.get("torchvision_needs", ""))
    if needs and not _fits(torch, needs):
        return warning(
            "versions",
            f"torchvision {vision} asks for {needs}, and torch {torch} is installed",
            "install torch and torchvision together and from the same index",
        )
    return ok("versions", f"torch {torch} and torchvision {vision} work together")


def _device(told: Mapping[str, Json], device: str) -> Iterator[Finding]:
    devices = told.get("devices", [])
    if "device_error" in told or not told.get("computed"):
        why = told.get("device_error", "a small matrix product came out wrong")
        advice = "is the driver installed and the GPU visible (nvidia-smi, CUDA_VISIBLE_DEVICES)? or set worker.device = cpu"
        if device.startswith("cuda") and not told.get("cuda_build"):
            advice = "this torch was built for the CPU: install a CUDA build, or set worker.device = cpu"
        yield fault("gpu", f"{device} cannot compute: {why}", advice)
        return
    if not str(told["device"]).startswith("cuda"):
        yield ok("gpu", "no CUDA device is used; a small computation on the CPU is right")
        return
    number = int(str(told["device"]).partition(":")[2] or 0)
    own = devices[number]
    said = f"{own['name']}: {size(own['free'])} of {size(own['total'])} free; a small computation is right"
    if own["free"] < LITTLE_GPU_MEMORY:
        yield warning(
            "gpu", said, "that is little: stop what else uses the GPU (nvidia-smi), or lower batch_size"
        )
    else:
        yield ok("gpu", said)
