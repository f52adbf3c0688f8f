"""A folder in which the documentation's commands are typed, with real processes that are ended together.

What is changed for the test is what any user may change: addresses, rounds and the like by the variables that
docs/configuration.md names. Paths outside of the folder (`/etc`, `/opt`, `/var`) are moved into it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pages.docs_pages import ROOT
from pages.docs_stories import Shown, blocks_at, left_out
from processes.federation import PATIENCE, read_events
from processes.ports import free_port

PROGRAMS = {"ssd": "ssd", "ssd-coordinator": "coordinator", "ssd-worker": "worker"}
_WARM = Path(__file__).resolve().parents[1] / "processes" / "warm_programs.py"
_PRELOADED = {
    "ssd": ("ssd.cli", "torch", "sklearn.linear_model", "ssd.evaluation.evaluate"),
    "daemons": ("coordinator.cli.main", "worker.cli.main"),  # without torch, as everywhere
}
_LAUNCHER = """\
#!/bin/sh
if [ "$1" = run ]; then exec {python} -m {module} "$@"; fi
exec {python} -IS {warm} call {socket} {main} "$@"
"""
_PROGRAM = re.compile(r"(?:^|[ /])(ssd-coordinator|ssd-worker) (run\b)?")
_PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "proto")])
_TOKEN = re.compile(r"ssdjoin1_\S+")
_MOVED = re.compile(r"(?<![\w./-])/(etc|opt|srv|var)/")


class Warm:
    """The programs, imported once for all sites; daemons are started without it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._servers: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers.values():
            server.kill()
            server.wait()
        self._folder.cleanup()

    def socket(self, program: str) -> Path:
        """Where a program's commands go."""
        kind = program if program in _PRELOADED else "daemons"
        path = Path(self._folder.name) / kind
        if kind not in self._servers:
            variables = {**os.environ, "PYTHONPATH": _PYTHONPATH, "GRPC_VERBOSITY": "ERROR"}
            line = [sys.executable, str(_WARM), "serve", str(path), *_PRELOADED[kind]]
            self._servers[kind] = subprocess.Popen(line, env=variables)
            deadline = time.monotonic() + PATIENCE
            while not path.exists():
                assert time.monotonic() < deadline, f"{kind} cannot be imported"
                time.sleep(0.02)
        return path


class Site:
    """Terminals of one story; every command line runs in bash, and variables stay."""

    def __init__(
        self, root: Path, warm: Warm, programs: Sequence[str] = tuple(PROGRAMS), **variables: str
    ) -> None:
        """`programs` are those that the pages need, `variables` the coordinator's settings."""
        self.root = root
        self.ports = {name: free_port() for name in ("rpc", "http", "enrolment")}
        self.folder = root
        """Where the next command is typed."""
        self.variables: dict[str, str] = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SSD_")},
            "PYTHONPATH": _PYTHONPATH,
            "GRPC_VERBOSITY": "ERROR",
            "SSD_LOG_FORMAT": "json",
        }
        self.own: dict[str, dict[str, str]] = {
            "ssd-coordinator": {
                "SSD_COORDINATOR_LISTEN": f"127.0.0.1:{self.ports['rpc']}",
                "SSD_COORDINATOR_HTTP_LISTEN": f"127.0.0.1:{self.ports['http']}",
                "SSD_LIMITS_HEARTBEAT_SECONDS": "1",
                **variables,
            },
            "ssd-worker": {
                "SSD_WORKER_COORDINATOR": f"127.0.0.1:{self.ports['rpc']}",
                "SSD_WORKER_HTTP_LISTEN": "",
            },
        }
        """Variables of one program's commands alone."""
        self.printed: dict[str, str] = {}
        """What a command wrote to standard output the last time."""
        self.trained: Callable[[], bool] = lambda: "finished" in self.phases()
        """Whether what follows a worker's start may be typed."""
        self._typed: dict[str, str] = {}
        """Command -> the first page that showed it."""
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.token = ""
        """What stands for `ssdjoin1_…` in the next command: the newest that was printed."""
        self._install({name: warm.socket(name) for name in programs})

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._daemons.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _install(self, sockets: Mapping[str, Path]) -> None:
        """The repository's files that commands name, and the programs where `pip install` would put them."""
        shutil.copytree(ROOT / "deploy", self.root / "deploy")
        programs = self.root / ".venv" / "bin"
        programs.mkdir(parents=True)
        for name, path in sockets.items():
            module = PROGRAMS[name]
            main = "ssd.cli" if module == "ssd" else f"{module}.cli.main"
            (programs / name).write_text(
                _LAUNCHER.format(python=sys.executable, module=module, main=main, warm=_WARM, socket=path)
            )
            (programs / name).chmod(0o755)
        (programs / "activate").write_text(f'PATH="{programs}:$PATH"\n')
        self.variables["PATH"] = f"{programs}{os.pathsep}{self.variables['PATH']}"

    # ------------------------------------------------------------------------------------------- commands

    def follow(self, place: str, typed: Callable[[str], None] | None = None) -> None:
        """Type every command of a place that is not left out and that no other page has had typed."""
        for block in blocks_at(place):
            for command in block.commands:
                if (
                    left_out(Shown(block.place, command)) is None
                    and self._typed.setdefault(command, block.page) == block.page
                ):
                    (typed or self.type)(command)

    def type(self, command: str, folder: Path | None = None, **variables: str) -> str:
        """Run one command line to its end, or start a daemon and wait until it serves; what it printed."""
        line = self.moved(_TOKEN.sub(self.token, command))
        found = _PROGRAM.search(line)
        passing = {**(self.own[found[1]] if found else {}), **variables}
        self.printed[command] = ""
        if found and found[2] and line.startswith(found[1]):
            self.start(found[1], line, folder or self.folder, passing)
            return ""
        before = {**self.variables, **passing}
        state = self.root / ".typed"
        script = f"set -a -o pipefail\n{line}\nended=$?\nexport -p > {shlex.quote(str(state))}\nexit $ended"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=folder or self.folder,
            env=before,
            input=self.token,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}\n{self._logs()}"
        self._keep(state.read_text(), before, passing)
        if token := _TOKEN.search(done.stdout):
            self.token = token[0]
        self.printed[command] = done.stdout
        return done.stdout

    def moved(self, text: str) -> str:
        """Paths of the machine's own folders, taken into this one."""
        return _MOVED.sub(f"{self.root}/\\1/", text)

    def start(self, name: str, line: str, folder: Path, passing: Mapping[str, str]) -> None:
        """A daemon in a terminal of its own, as the leader of its process group, as a shell does it."""
        number = len(self.daemons(name))
        log = self.root / f"{name}-{number}.log"
        with log.open("wb") as sink:
            self._daemons[log.stem] = subprocess.Popen(
                ["bash", "-c", f"exec {line}"],
                cwd=folder,
                env={**self.variables, **passing},
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        if name == "ssd-coordinator":
            self.until(lambda: self.http("/livez") == 200, "the coordinator is alive")
        else:
            self.until(self.trained, f"rounds after: {line}")

    def _keep(self, exported: str, before: Mapping[str, str], passing: Mapping[str, str]) -> None:
        """Take up the variables that a command line has set or unset."""
        after = {}
        for word in re.findall(
            r'^declare -x (\w+)(?:="((?:[^"\\]|\\.)*)")?$', exported, re.MULTILINE | re.DOTALL
        ):
            after[word[0]] = re.sub(r"\\(.)", r"\1", word[1])
        for name in [name for name in before if name not in after]:
            self.variables.pop(name, None)
        for name, value in after.items():
            if (
                name not in passing
                and before.get(name) != value
                and name not in {"SHLVL", "PWD", "OLDPWD", "_"}
            ):
                self.variables[name] = value

    # ------------------------------------------------------------------------------------------- asking

    def http(self, path: str) -> int:
        """The status of a GET at the coordinator's HTTP port; 0 while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['http']}{path}", timeout=5) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def events(self, daemon: str, name: str) -> list[dict[str, Any]]:
        """A daemon's log lines of one kind."""
        return read_events(self.root / f"{daemon}.log", name)

    def daemons(self, name: str) -> list[str]:
        """Those of one program that were started."""
        return [each for each in self._daemons if each.startswith(name)]

    def phases(self) -> list[str]:
        """What the coordinator has gone through."""
        return [each["phase"] for each in self.events("ssd-coordinator-0", "phase")]

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait, while all daemons run."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            ended = [name for name, process in self._daemons.items() if process.poll() is not None]
            assert not ended, f"{ended} ended before: {what}\n{self._logs()}"
            assert time.monotonic() < deadline, f"waited in vain: {what}\n{self._logs()}"
            time.sleep(0.05)

    def reload(self, name: str) -> None:
        """SIGHUP to the first daemon of a program."""
        self._daemons[f"{name}-0"].send_signal(signal.SIGHUP)

    def interrupt(self) -> dict[str, int]:
        """Ctrl-C in every daemon's terminal; their exit codes."""
        for process in self._daemons.values():
            os.killpg(process.pid, signal.SIGINT)
        return {name: process.wait(PATIENCE) for name, process in self._daemons.items()}

    def _logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.root.glob("*.log"))
        )
