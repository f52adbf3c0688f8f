"""What is built has what is not Python too."""

from __future__ import annotations

import os
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


def test_what_a_wheel_installs_runs_its_own_code(tmp_path: Path) -> None:
    """As its console scripts and children are started, with files of our names in the working directory."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed, project = tmp_path / "site-packages", tmp_path / "project"
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(installed)
    project.mkdir()
    for name in ("worker", "coordinator", "ssd", "ssd_proto", "random"):
        (project / f"{name}.py").write_text("raise SystemExit('somebody else')")
    script = tmp_path / "ssd-worker"
    script.write_text(
        f"import sys\nsys.path.insert(1, {str(installed)!r})\nfrom ssd_wire.start import worker\nsys.exit(worker())\n"
    )
    environment = {**os.environ, "PYTHONPATH": ":"}
    launcher = installed / "ssd" / "daemon" / "isolated.py"
    facts = "import ssd, worker, coordinator, ssd_proto; print(ssd.__file__, worker.__file__, coordinator.__file__, ssd_proto.__file__)"
    for command, expected in (
        ([sys.executable, str(script), "--help"], "Usage: ssd-worker "),
        ([sys.executable, "-I", "-S", str(launcher), "-c", facts], str(installed / "ssd" / "__init__.py")),
    ):
        done = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(expected)
    assert all(path.startswith(str(installed)) for path in done.stdout.split())
