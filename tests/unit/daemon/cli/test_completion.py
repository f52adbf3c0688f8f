"""`completion`: a real bash, told how, proposes the commands and options that exist; zsh and fish get their lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from coordinator.cli.main import cli as coordinator
from ssd.cli import cli as ssd
from worker.cli.main import cli as worker

ROOT = Path(__file__).resolve().parents[4]
PROGRAMS = {
    "ssd-coordinator": ("coordinator.cli.main", coordinator),
    "ssd-worker": ("worker.cli.main", worker),
    "ssd": ("ssd.cli", ssd),
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three programs, as pip makes them."""
    folder = tmp_path_factory.mktemp("bin")
    for name, (module, _) in PROGRAMS.items():
        program = folder / name
        program.write_text(
            f"#!{sys.executable}\nimport sys\nfrom {module} import main\nsys.exit(main())\n", encoding="utf-8"
        )
        program.chmod(0o755)
    return folder


def lines(program: str, shell: str) -> str:
    done = CliRunner().invoke(PROGRAMS[program][1], ["completion", shell])
    assert done.exit_code == 0
    return done.output


def proposed(installed: Path, program: str, *words: str) -> list[str]:
    """What bash would offer for the last of the words at the Tab key."""
    typed = " ".join((program, *(f"'{word}'" for word in words)))
    function = f"_{program.replace('-', '_')}_completion"
    script = (
        f"{lines(program, 'bash')}\n"
        f"complete -p {program} | grep -q -- '-F {function}' || exit 9\n"  # bash itself was told
        f"COMP_WORDS=({typed})\nCOMP_CWORD={len(words)}\nCOMPREPLY=()\n{function} {program}\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={
            **os.environ,
            "PATH": f"{installed}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "proto")]),
        },
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("program", "words", "expected", "not_expected"),
    [
        ("ssd-coordinator", ["ca", "rev"], {"revoke", "revoke-token"}, {"init"}),
        ("ssd-worker", ["run", "--dev"], {"--device", "--devices"}, {"--config"}),
        ("ssd", ["demo", "--secure-aggregation", ""], {"off", "passive", "active"}, set()),
    ],
)
def test_bash_proposes_what_exists(
    installed: Path, program: str, words: list[str], expected: set[str], not_expected: set[str]
) -> None:
    found = set(proposed(installed, program, *words))
    assert expected <= found
    assert not not_expected & found


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("shell", "told"), [("bash", "complete "), ("zsh", "compdef "), ("fish", "complete ")]
)
def test_every_shell_is_told_of_the_program(program: str, shell: str, told: str) -> None:
    text = lines(program, shell)
    assert f"_{program.replace('-', '_').upper()}_COMPLETE={shell}_complete" in text
    assert any(told in line and program in line for line in text.splitlines())


def test_another_shell_is_refused() -> None:
    done = CliRunner().invoke(coordinator, ["completion", "tcsh"])
    assert done.exit_code == 2
    assert "bash" in done.output
