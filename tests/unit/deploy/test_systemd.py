"""deploy/systemd: systemd takes the units and finds little exposed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "systemd"
UNITS = [("ssd-coordinator.service", 1.5), ("ssd-worker@.service", 2.5)]


def analyse(*arguments: str) -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(("name", "exposure"), UNITS)
def test_a_unit_is_taken_and_exposes_little(tmp_path: Path, name: str, exposure: float) -> None:
    # The program is not installed on this machine, and a missing one is a mistake to systemd.
    text = re.sub(r"/opt/ssd/bin/ssd-\w+", "/bin/true", (FOLDER / name).read_text())
    for instance in {name, name.replace("@.", "@north.")}:
        (tmp_path / instance).write_text(text)
    complaint = analyse("verify", str(tmp_path / name.replace("@.", "@north.")))
    assert not [line for line in complaint.splitlines() if name.split(".")[0] in line], complaint
    found = re.search(
        r"exposure level.*: ([0-9.]+)", analyse("security", "--offline=true", str(tmp_path / name))
    )
    assert found is not None
    assert float(found[1]) <= exposure
