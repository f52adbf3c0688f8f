"""deploy/slurm and deploy/ssh: bash and shellcheck take them, what they call exists, and a rehearsal does nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from command_lines import check

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FEDERATE = DEPLOY / "ssh" / "federate.sh"
SCRIPTS = [*sorted((DEPLOY / "slurm").glob("*.sbatch")), FEDERATE]
# The daemons' commands in a script, however they are quoted; up to a redirection, a bracket or the line's end.
CALL = re.compile(
    r'(?:"\$bin/|\$program/|\(|^\s*)(ssd(?:-coordinator|-worker))"? ([^>|&;)\n]*)', re.MULTILINE
)


def calls(script: Path) -> list[str]:
    """Every call of ours in a script, as one line, with variables as words."""
    text = re.sub(r"(?m)^\s*#.*$", "", script.read_text(encoding="utf-8")).replace("\\\n", " ")
    text = text.replace('""', "none")
    text = text.replace("$own", "--clients a --set transport.identity_dir=x")
    text = text.replace("$place", "--config worker.toml --state-dir state")
    text = re.sub(r"\$\(cat [^)]*\)", "host", text)
    found = []
    for program, arguments in CALL.findall(text):
        words = re.sub(r"\\?\$\{?\w+\}?", "word", arguments.replace('"', ""))
        found.append(re.sub(r"\s*<.*", "", f"{program} {words.strip()}"))
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_and_shellcheck_take_it(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([str(shellcheck), "--shell=bash", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("slurm/coordinator.sbatch", ["ca init", "config check", "run"]),
        ("slurm/worker.sbatch", ["enroll", "run"]),
        ("ssh/federate.sh", ["ca token", "doctor", "enroll", "run"]),
    ],
)
def test_every_command_and_option_exists(script: str, expected: list[str]) -> None:
    found = calls(DEPLOY / script)
    for line in found:
        check(line)
    seen = " | ".join(found)
    assert all(f" {command} " in f"{seen} " for command in expected), seen


def test_a_wrong_option_in_a_script_would_be_noticed(tmp_path: Path) -> None:
    script = tmp_path / "x.sbatch"
    script.write_text('"$bin/ssd-worker" run --config "$config" \\\n  --nosuch "$x" &\n')
    (line,) = calls(script)
    with pytest.raises(click.UsageError, match="nosuch"):
        check(line)


@pytest.mark.parametrize("script", SCRIPTS[:2], ids=lambda path: path.name)
def test_a_job_is_ended_and_requeued_in_good_order(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    directives = dict(
        re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(.*))?", line).groups()  # type: ignore[union-attr]
        for line in text.splitlines()
        if line.startswith("#SBATCH")
    )
    # Slurm reads them up to the first command.
    assert text.index("#SBATCH") < text.rindex("#SBATCH") < text.index("set -euo")
    assert directives["signal"] == "B:TERM@120"
    assert "requeue" in directives
    assert "trap 'kill -TERM \"$daemon\"' TERM" in text
    assert ("gres" in directives) == (script.name == "worker.sbatch")


class Place:
    """A folder with what the SSH recipe takes, and programs that write down how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        (folder / "bin").mkdir()
        for name, code in (("ssh", 1), ("scp", 0), ("ssd-coordinator", 0)):
            program = folder / "bin" / name
            said = "echo ssdjoin1_secret" if name == "ssd-coordinator" else f"cat > /dev/null; exit {code}"
            if name == "ssh":
                said = 'read -r line; echo "stdin $line" >> "$CALLS"; case "$*" in *"test -e"*) exit 1;; esac'
            program.write_text(f'#!/bin/bash\necho "{name} $*" >> "$CALLS"\n{said}\n')
            program.chmod(0o755)
        for name in ("ssd_federated-0.1.0-py3-none-any.whl", "worker.toml", "coordinator.toml"):
            (folder / name).touch()
        self.hosts("gpu-1.example.org gpu-1 garden,market", "# a remark", "", "me@10.0.0.7 gpu-2 harbour")

    def hosts(self, *lines: str) -> None:
        (self.folder / "hosts").write_text("\n".join(lines))  # the last line has no end

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        files = ("hosts", "ssd_federated-0.1.0-py3-none-any.whl", "worker.toml", "coordinator.toml")
        return subprocess.run(
            ["bash", str(FEDERATE), *arguments, *files],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "CALLS": str(self.calls),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


class TestSsh:
    def test_a_rehearsal_says_everything_and_does_nothing(self, tmp_path: Path) -> None:
        place = Place(tmp_path)
        done = place.run("--dry-run", "up")
        assert (done.returncode, done.stderr, place.called()) == (0, "", [])
        for name in ("gpu-1 on gpu-1.example.org", "gpu-2 on me@10.0.0.7"):
            _, _, after = done.stdout.partition(name + "\n")
            steps = after.splitlines()[:9]
            for what, line in zip(
                ("venv", "scp", "worker.toml", "pip", "test", "ca token", "enroll", "doctor", "run"), steps, strict=True
            ):  # fmt: skip
                assert what in line
                assert line.startswith(("  $ ", f"  {name.split()[-1]}$ "))

    def test_what_was_rehearsed_is_what_is_done(self, tmp_path: Path) -> None:
        place = Place(tmp_path)
        rehearsed = place.run("--dry-run", "up").stdout
        done = place.run("up")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == rehearsed
        programs = [line.split()[0] for line in place.called() if not line.startswith("stdin")]
        assert programs == ["ssh", "scp", "scp", "ssh", "ssh", "ssd-coordinator", "ssh", "ssh", "ssh"] * 2
        # The token is handed over on standard input, and to `enroll` alone.
        assert "ssdjoin1_secret" not in done.stdout
        before = [
            earlier
            for earlier, line in zip(place.called(), place.called()[1:], strict=False)
            if line == "stdin ssdjoin1_secret"
        ]
        assert len(before) == 2
        assert all("enroll" in line and "--token-file -" in line for line in before)

    def test_a_host_that_fails_does_not_stop_the_others_and_is_told_of(self, tmp_path: Path) -> None:
        place = Place(tmp_path)
        (tmp_path / "bin" / "scp").write_text('#!/bin/bash\ncase "$*" in *gpu-1.example*) exit 1;; esac\n')
        done = place.run("up")
        assert done.returncode == 1
        assert "not every host is done" in done.stderr
        assert sum("enroll" in line for line in place.called()) == 1

    @pytest.mark.parametrize("verb", ["status", "down"])
    def test_the_other_verbs_ask_every_host_once(self, tmp_path: Path, verb: str) -> None:
        place = Place(tmp_path)
        assert place.run(verb).returncode == 0
        assert sum(line.startswith("ssh ") for line in place.called()) == 2

    @pytest.mark.parametrize(
        "line",
        [
            "-oProxyCommand=x gpu a",
            "host gpu;reboot a",
            "host gpu $(reboot)",
            "host gpu a,b c",
            "host gpu",
            "ho`st gpu a",
        ],
    )
    def test_a_line_that_a_shell_would_misread_is_refused(self, tmp_path: Path, line: str) -> None:
        place = Place(tmp_path)
        place.hosts(line)
        done = place.run("up")
        assert (done.returncode, place.called()) == (2, [])
        assert "destination name client,client" in done.stderr

    def test_wrong_usage_is_2(self, tmp_path: Path) -> None:
        for arguments in (["explode"], ["up", "one", "too", "many", "words", "more"], []):
            done = subprocess.run(["bash", str(FEDERATE), *arguments], capture_output=True, text=True)
            assert (done.returncode, done.stdout) == (2, "")
            assert "to be run on the coordinator's host" in done.stderr.lower()
