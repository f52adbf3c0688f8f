"""What is built has what is not Python too."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from coordinator.web.pages import load

ROOT = Path(__file__).resolve().parents[3]


def test_a_wheel_has_the_status_page(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        held = {
            Path(name).name: opened.read(name) for name in names if name.startswith("coordinator/web/static/")
        }
    assert held == {name: page.content for name, page in load().items()}
    assert "coordinator/py.typed" in names
