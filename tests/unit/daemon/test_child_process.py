"""How children are started: what they get, and that they find the code of the process that started them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ssd
from ssd.daemon.child_process import environment, python

FACTS = (
    "import json, sys, ssd, ssd_proto, ssd_wire; "
    "print(json.dumps([ssd.__file__, ssd_proto.__file__, sys.argv, sys.flags.isolated, sys.prefix, sys.path]))"
)


def told(*arguments: str, cwd: Path) -> list[object]:
    done = subprocess.run(
        python(*arguments), env=environment(), cwd=cwd, capture_output=True, text=True, timeout=60, check=True
    )
    value: list[object] = json.loads(done.stdout)
    return value


def test_a_child_is_isolated_and_finds_the_same_code(tmp_path: Path) -> None:
    package, proto, argv, isolated, prefix, path = told("-c", FACTS, "one", "two words", cwd=tmp_path)
    assert package == ssd.__file__
    assert Path(str(proto)).parents[1] == Path(ssd.__file__).parents[1] / "proto"
    assert argv == ["-c", "one", "two words"]
    assert (isolated, prefix) == (1, sys.prefix)
    assert isinstance(path, list)
    assert str(tmp_path) not in path
    assert "" not in path


def test_a_module_gets_its_arguments_and_its_exit_code_is_the_childs(tmp_path: Path) -> None:
    done = subprocess.run(
        python("-m", "ssd", "nonsense"), cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "No such command 'nonsense'" in done.stderr


def test_what_chooses_code_is_taken_out_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONSTARTUP",
        "PYTHONUSERBASE",
        "PYTHONINSPECT",
        "PYTHONBREAKPOINT",
    ):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/lib")
    made = environment({"OWN": "1"})
    kept = {name: value for name, value in made.items() if name.startswith("PYTHON")}
    assert kept.pop("PYTHONSAFEPATH") == "1"
    assert kept.pop("PYTHONNOUSERSITE") == "1"
    assert kept.pop("PYTHONHASHSEED") == "7"
    assert set(kept) <= {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONFAULTHANDLER"}
    assert (made["OWN"], made["LD_LIBRARY_PATH"], made["PATH"]) == ("1", "/lib", os.environ["PATH"])


_THREADS_OF_A_DAEMON = """
import contextlib, io, os, runpy, sys
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    sys.argv = ["program", "--help"]
    runpy.run_module("PROGRAM", run_name="__main__")
import numpy as np
np.dot(np.ones(1 << 20), np.ones(1 << 20))
from ssd.daemon.child_process import environment
print(len(os.listdir("/proc/self/task")), environment().get("OPENBLAS_NUM_THREADS", "not set"))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads where Linux lists them")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="OpenBLAS starts threads for further cores")
@pytest.mark.parametrize("program", ["coordinator", "worker"])
def test_a_daemons_numpy_has_one_thread_and_its_childrens_is_theirs(program: str, tmp_path: Path) -> None:
    """Others wait busily after every product of vectors."""
    script = _THREADS_OF_A_DAEMON.replace("PROGRAM", program)
    inherited = {name: value for name, value in os.environ.items() if "_NUM_THREADS" not in name}
    for own, expected in ({}, "1 not set"), ({"OPENBLAS_NUM_THREADS": "2"}, "2 2"):
        done = subprocess.run(
            python("-c", script), env={**inherited, **own}, cwd=tmp_path, capture_output=True, text=True, check=True
        )  # fmt: skip
        assert done.stdout.strip() == expected
