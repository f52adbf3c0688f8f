"""A clean root booted with its own systemd in a container of systemd's, and commands inside."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self


class Booted:
    """`with Booted(root, name, network) as machine:`; it is powered off afterwards.

    `network` is a network namespace's file; several machines may share one.
    """

    def __init__(self, root: Path, name: str, network: Path) -> None:
        self.root, self.name, self._network = root, name, network
        self._log = root.parent / f"{name}.console"

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--resolv-conf=off",
                 "--timezone=off", "--link-journal=no", f"--machine={self.name}", f"--directory={self.root}",
                 f"--network-namespace-path={self._network}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for _ in range(120):
            if self._process.poll() is not None:
                break
            # systemd is the first child that can say how it goes.
            for child in children.read_text().split():
                self._leader = int(child)
                if self.run("systemctl is-system-running --wait || systemctl is-system-running", check=False) in (
                    "running", "degraded", "running\nrunning", "degraded\ndegraded",
                ):  # fmt: skip
                    return self
            time.sleep(0.5)
        self.__exit__(None, None, None)
        raise RuntimeError(f"{self.name} did not start:\n{self._log.read_text()[-3000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            print(
                self.run("systemctl --failed --no-pager; journalctl --no-pager -n 60 -u 'ssd-*'", check=False)
            )
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def run(self, line: str, told: str = "", *, check: bool = True) -> str:
        """A shell's line, as root, in the checkout; `told` is its standard input. What it printed.

        Raises:
            RuntimeError: it failed, and `check`.
        """
        done = subprocess.run(
            ["nsenter", f"--target={self._leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
             "--root", "--wd", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
             "/bin/sh", "-ec", f"cd /src 2>/dev/null || true; {line}"],
            input=told, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode and check:
            raise RuntimeError(
                f"{self.name}: {line}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout.strip()
