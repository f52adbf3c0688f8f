"""deploy/slurm and deploy/ssh: bash and shellcheck take them, what they call exists, and a rehearsal does nothing."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from pages.command_lines import check

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
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
    assert ("gres" in directives) == (script.name == "worker.sbatch")


class Job:
    """A job's script as a plain process, with programs of the test's in place of the daemons, and a clock that races.

    They say how they were called through a pipe, so nothing here waits longer than it must.
    """

    DAEMON = """#!/bin/bash
echo "$*" > "$CALLS"
case "$1" in
  enroll) case "$*" in *stale:7444*) exit 3 ;; esac; mkdir -p "$STATE/identity"; touch "$STATE/identity/worker.pem" ;;
  run)
    trap 'exit 7' TERM
    echo ready > "$CALLS"
    while true; do /bin/sleep 0.02; done ;;
esac
"""

    def __init__(self, folder: Path, script: str) -> None:
        self.folder = folder
        self.host = folder / "coordinator.host"
        programs = folder / "venv" / "bin"
        programs.mkdir(parents=True)
        (folder / "pki").mkdir()
        (folder / "pki" / "ca.pem").touch()
        state = folder / "workers" / "worker-2"
        state.mkdir(parents=True)
        sleep = "#!/bin/bash\nexec /bin/sleep 0.05\n"
        for name, text in (("ssd-worker", self.DAEMON), ("ssd-coordinator", self.DAEMON), ("sleep", sleep)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        os.mkfifo(folder / "calls")
        # Open both ways: whoever writes never waits for a reader.
        self._calls = os.fdopen(os.open(folder / "calls", os.O_RDWR), "rb", buffering=0)
        self._script = DEPLOY / "slurm" / script
        self._environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "SSD_HOME": str(folder),
            "CALLS": str(folder / "calls"),
            "STATE": str(state),
            "SLURM_ARRAY_TASK_ID": "2",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **more: str) -> None:
        self.process = subprocess.Popen(
            ["bash", str(self._script)],
            env=self._environment | more,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def next_call(self) -> str:
        """What a daemon said next."""
        line = b""
        while not line.endswith(b"\n"):
            assert select.select([self._calls], [], [], 20)[0], "nothing is called any more"
            line += self._calls.read(1)
        return line.decode().strip()

    def until(self, what: str) -> str:
        """The next call that has this in it."""
        while what not in (call := self.next_call()):
            pass
        return call

    def terminate(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)

    def close(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._calls.close()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Callable[[str], Job]]:
    with contextlib.ExitStack() as closing:

        def make(script: str) -> Job:
            made = Job(tmp_path, script)
            closing.callback(made.close)
            return made

        yield make


class TestSlurm:
    # bash takes functions from the environment: this one gives back only when whom it ended has ended.
    SLOW_KILL = {"BASH_FUNC_kill%%": '() { builtin kill "$@" || return; [ "$1" = -0 ] || /bin/sleep 0.3; }'}  # noqa: RUF012

    @pytest.mark.parametrize("script", ["coordinator.sbatch", "worker.sbatch"])
    @pytest.mark.parametrize("slow", [False, True])
    def test_a_job_ends_with_its_daemons_exit_code(
        self, job: Callable[[str], Job], script: str, slow: bool
    ) -> None:
        it = job(script)
        it.host.write_text("node-1\n")
        it.start(**(self.SLOW_KILL if slow else {}))
        it.until("ready")
        assert it.terminate() == 7

    def test_a_worker_goes_after_its_coordinator(self, job: Callable[[str], Job]) -> None:
        it = job("worker.sbatch")
        it.host.write_text("stale\n")
        it.start()
        for _ in range(2):
            assert "--coordinator stale:7444" in it.until("enroll")
        for place in ("node-1", "node-2"):
            new = it.folder / "new"
            new.write_text(place + "\n")
            new.rename(it.host)
            assert f"--coordinator {place}:7443" in it.until("run ")
            it.until("ready")
        it.host.unlink()  # the coordinator's job has ended, and this is no reason to stop
        assert it.process is not None
        assert it.process.poll() is None
        assert it.terminate() == 7

    def test_a_worker_that_waits_for_a_coordinator_can_be_ended(self, job: Callable[[str], Job]) -> None:
        it = job("worker.sbatch")
        it.host.write_text("stale\n")
        it.start()
        it.until("enroll")
        it.host.unlink()
        assert it.terminate() == 143

    def test_enrolment_that_is_refused_for_good_ends_the_job(self, job: Callable[[str], Job]) -> None:
        it = job("worker.sbatch")
        (it.folder / "venv" / "bin" / "ssd-worker").write_text("#!/bin/bash\nexit 2\n")
        it.host.write_text("node-1\n")
        it.start()
        assert it.process is not None
        assert it.process.wait(timeout=20) == 2

    def test_a_coordinator_says_where_it_is_while_it_is(self, job: Callable[[str], Job]) -> None:
        it = job("coordinator.sbatch")
        it.host.write_text("stale\n")
        it.start()
        it.until("ready")
        assert it.host.read_text() not in ("", "stale\n")
        assert it.terminate() == 7
        assert not it.host.exists()

    def test_a_coordinator_that_ends_leaves_the_word_of_another(self, job: Callable[[str], Job]) -> None:
        it = job("coordinator.sbatch")
        it.start()
        it.until("ready")
        it.host.write_text("node-2\n")
        assert it.terminate() == 7
        assert it.host.read_text() == "node-2\n"


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

    @pytest.mark.parametrize(("code", "tokens"), [(0, 0), (1, 2), (2, 0), (255, 0)])
    def test_a_host_that_did_not_answer_is_not_taken_for_one_that_is_new(
        self, tmp_path: Path, code: int, tokens: int
    ) -> None:
        place = Place(tmp_path)
        ssh = tmp_path / "bin" / "ssh"
        ssh.write_text(ssh.read_text().replace("exit 1;;", f"exit {code};;"))
        assert place.run("up").returncode == (1 if code > 1 else 0)
        assert sum(line.startswith("ssd-coordinator") for line in place.called()) == tokens

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
