"""A running coordinator, asked from Python: what `ssd-coordinator VERB --format json` answers, as rows.

Each call starts that command and reads its answer, about a second. So what a notebook sees is what an operator sees,
with the same certificates and the same refusals; and this library stays free of the network.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd.api.rows import Rows, facts_html
from ssd.daemon.child_process import environment, python
from ssd.daemon.printable import printable_lines

Json = Any
SECONDS = 120.0
"""How long an answer may take."""


class CoordinatorRefused(RuntimeError):
    """The coordinator could not be asked, or said no; the message is the command's own sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """Where a coordinator is, and as whom it is asked. Nothing is kept open."""

    address: str
    pki: Path | None
    """Folder with ca.pem, operator.pem and operator.key; None: without TLS, on this machine."""

    def status(self) -> dict[str, Json]:
        """The run: round, phase, workers, clients, newest losses and measures.

        Raises:
            CoordinatorRefused: as for every call here.
        """
        found: dict[str, Json] = self._ask("status")
        return found

    def rounds(self, limit: int = 1000) -> Rows:
        """Attempts at rounds, newest first, at most `limit`."""
        return Rows(self._ask("rounds", "--limit", str(limit)))

    def clients(self) -> Rows:
        """Every client: who hosts it, its scaling vector, when it last took part."""
        return Rows(self._ask("clients"))

    def evaluations(self) -> Rows:
        """A row for each measured version: the version, then its measures by name."""
        return Rows({"version": each["version"], **each["values"]} for each in self._ask("evaluations"))

    def export(self, out: Path | str, *, version: int | None = None) -> Path:
        """Write an encoder to `out` and give its path; the newest version, or the one asked for."""
        number = [] if version is None else ["--version", str(version)]
        self._ask("export", "--out", str(out), *number)
        return Path(out)

    def _ask(self, verb: str, *arguments: str) -> Json:
        how = ["--insecure"] if self.pki is None else ["--pki", str(self.pki)]
        command = python(
            "-m", "coordinator", verb, "--address", self.address, *how, "--format", "json", *arguments
        )
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=SECONDS,
                env=environment(),
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CoordinatorRefused(
                f"{self.address} did not answer {verb} within {SECONDS:.0f} seconds"
            ) from error
        if done.returncode != 0:
            words = done.stderr.decode("utf-8", "replace").strip().removeprefix("error: ")
            raise CoordinatorRefused(
                printable_lines(words) or f"{verb} ended with exit code {done.returncode}"
            )
        return json.loads(done.stdout)

    def _repr_html_(self) -> str:
        how = "without TLS" if self.pki is None else f"as the operator in {self.pki}"
        return facts_html("Coordinator", {"address": self.address, "asked": how})


def connect(address: str, *, pki: Path | str = "pki", insecure: bool = False) -> Connection:
    """Reach a coordinator, and see that it answers.

    Args:
        address: host:port, or unix:/path.
        pki: folder with ca.pem, operator.pem and operator.key.
        insecure: without TLS; the coordinator must be on this machine and run so.

    Raises:
        CoordinatorRefused: it cannot be reached, or does not accept these certificates.
    """
    made = Connection(address=address, pki=None if insecure else Path(pki))
    made.status()
    return made
