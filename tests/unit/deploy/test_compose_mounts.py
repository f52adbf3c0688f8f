"""What each service of deploy/compose.yaml can see of the others: its own identity, and that for reading only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deployment.composition import Mount, mounted

COMPOSE: dict[str, Any] = yaml.safe_load(
    (Path(__file__).resolve().parents[3] / "deploy" / "compose.yaml").read_text()
)
OURS = {name: each for name, each in COMPOSE["services"].items() if "SSD_IMAGE" in each["image"]}


def mounts(name: str) -> list[Mount]:
    return [mounted(each) for each in OURS[name]["volumes"]]


def test_the_authoritys_key_is_mounted_where_certificates_are_issued_and_nowhere_else() -> None:
    (script,) = OURS["authority"]["command"]
    assert "ca init --out /pki/all " in script  # the folder that holds ca.key
    whole = {
        name
        for name in OURS
        for mount in mounts(name)
        if mount.source == "pki" and mount.subpath.split("/")[0] in ("", "all")
    }
    assert whole == {"authority"}
    copied = next(line for line in script.splitlines() if "/pki/coordinator" in line and "cp " in line)
    assert "ca.pem" in copied
    assert "ca.key" not in copied
    assert "*" not in copied


@pytest.mark.parametrize("name", sorted(OURS.keys() - {"authority"}))
def test_every_other_service_reads_its_own_identity_and_writes_only_its_own_state(name: str) -> None:
    own = name.removeprefix("worker-")
    shared = [mount for mount in mounts(name) if mount.source == "pki"]
    assert shared == [Mount("pki", f"/pki/{own}", read_only=True, subpath=own)]
    assert {mount.source for mount in mounts(name) if not mount.read_only} == {name}
    assert OURS[name]["read_only"] is True


@pytest.mark.parametrize("name", sorted(name for name in OURS if name.startswith("worker-")))
def test_a_worker_looks_for_what_is_its_own_where_it_is_mounted(name: str) -> None:
    own, environment = f"/pki/{name.removeprefix('worker-')}", OURS[name]["environment"]
    assert environment["SSD_TRANSPORT_IDENTITY_DIR"] == own
    assert environment["SSD_DATA_PARTITION"] == f"{own}/digits.json"
