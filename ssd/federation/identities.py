"""Certificates for a federation of one machine and one occasion: an authority that signs them and is forgotten.

The authority's key never leaves this process, so nobody can ever join later. A new attempt in the same folder makes
everything anew.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from ssd.federation.configs import WORKERS
from ssd.trust.authority import Credential, create_authority, issue
from ssd.trust.names import Role, Subject
from ssd.trust.private_files import make_private_folder, replace_private

DAYS = 30.0
"""Longer than any experiment takes."""
FEDERATION = "this-machine"


class Identities:
    """A new authority and the folders it fills.

    Args:
        folder: where; `ca.pem`, `coordinator.*` and `operator.*` go there.
        now: aware time.
        federation: the authority's name.
    """

    def __init__(self, folder: Path, now: dt.datetime, federation: str = FEDERATION) -> None:
        self.folder = folder
        self.federation = federation
        self._now = now
        self._authority = create_authority(federation, days=DAYS, now=now)
        for role in (Role.COORDINATOR, Role.OPERATOR):
            self._fill(folder, role.value, self.issued(role, role.value))

    def worker(self, name: str, *, trains: bool = True) -> Path:
        """A folder with the identity of a worker: `ca.pem`, `worker.pem` and `worker.key`.

        Args:
            name: of the worker.
            trains: it hosts clients; otherwise it may evaluate only.
        """
        folder = self.folder / WORKERS / name
        self._fill(folder, "worker", self.issued(Role.WORKER if trains else Role.EVALUATOR, name))
        return folder

    def issued(self, role: Role, name: str) -> Credential:
        """A certificate of this authority."""
        return issue(self._authority, Subject(self.federation, role, name), days=DAYS, now=self._now)

    @property
    def authority(self) -> bytes:
        """Its PEM certificate."""
        return self._authority.certificate

    def _fill(self, folder: Path, stem: str, credential: Credential) -> None:
        make_private_folder(folder)
        files = {
            "ca.pem": self.authority,
            f"{stem}.pem": credential.certificate,
            f"{stem}.key": credential.key,
        }
        for name, content in files.items():
            replace_private(folder / name, content)
