"""The model versions that are served, and how a worker may get each of them."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.errors import BlobCorrupt, BlobMissing, ClientFault, Reason
from coordinator.ports.blobs import BlobReader, Blobs
from coordinator.ports.journal import Journal
from coordinator.ports.records import RunRecord, VersionRecord
from ssd_wire.messages import Delta, ModelVersion


class Catalogue:
    """The run's versions in memory, kept in step with the store by the driver."""

    def __init__(self, run: RunRecord, journal: Journal, blobs: Blobs) -> None:
        self._journal = journal
        self._blobs = blobs
        self._versions = {version.number: version for version in journal.versions()}
        self._fixed = {run.declaration_blob.digest, *(artefact.blob.digest for artefact in run.artefacts)}
        self.newest = self._versions[max(self._versions)]

    @property
    def digests(self) -> Mapping[int, str]:
        """Model digest by version number."""
        return {number: version.model_digest for number, version in self._versions.items()}

    @property
    def records(self) -> Mapping[int, VersionRecord]:
        """Every version of the run by number, retained or not, oldest first."""
        return self._versions

    def record(self, number: int) -> VersionRecord | None:
        """A version's record, retained or not."""
        return self._versions.get(number)

    def holds(self, number: int) -> bool:
        """Whether the whole model of a version is still here."""
        record = self._versions.get(number)
        return record is not None and self._blobs.exists(record.full.digest)

    def known(self, number: int) -> int:
        """`number`, if it is a version whose whole model is here.

        Raises:
            ClientFault: reason not_found.
        """
        if not self.holds(number):
            raise ClientFault(Reason.NOT_FOUND, f"version {number} is not kept; see retention.full_versions")
        return number

    def open_blob(self, digest: str) -> BlobReader:
        """A blob a worker may read: of versions, tasks and the declaration.

        Raises:
            ClientFault: reason unknown_blob.
        """
        if not self.serves(digest):
            raise ClientFault(Reason.UNKNOWN_BLOB, "no message of this session names that blob")
        return self._blobs.open(digest)

    def add(self, version: VersionRecord) -> None:
        """A version was committed."""
        self._versions[version.number] = version
        self.newest = version

    def offer(self, number: int | None = None) -> ModelVersion:
        """How to get a version (the newest by default): whole, or over deltas while they are fewer bytes."""
        version = self.newest if number is None else self._versions[number]
        deltas: list[Delta] = []
        total = 0
        for step in range(version.number, 0, -1):
            record = self._versions.get(step)
            if record is None or record.delta is None or not self._blobs.exists(record.delta.digest):
                break
            total += record.delta.size
            if total > version.full.size:
                break
            deltas.append(Delta(number=step, blob=record.delta, model_digest=record.model_digest))
        return ModelVersion(
            number=version.number,
            model_digest=version.model_digest,
            full=version.full,
            deltas=tuple(reversed(deltas)),
        )

    def serves(self, digest: str) -> bool:
        """Whether a worker may fetch this blob: never the server's own state."""
        if digest in self._fixed:
            return True
        newest = self.newest.number
        return any(
            digest in _served(version)
            for number in range(newest, -1, -1)
            if (version := self._versions.get(number)) is not None and version.retained
        )

    def verify_newest(self) -> None:
        """Re-hash everything the next commit stands on.

        Raises:
            BlobMissing, BlobCorrupt: names the file's role and says what to do.
        """
        named = {f"version {self.newest.number}": self.newest.full}
        named |= {f"server state {name!r}": blob for name, blob in self.newest.server_state.items()}
        named |= {f"round artefact {made.name!r}": made.blob for made in self.newest.artefacts}
        for role, blob in named.items():
            try:
                self._blobs.verify(blob.digest)
            except (BlobMissing, BlobCorrupt) as error:
                raise type(error)(
                    f"{role} of the run is not intact: {error}. Restore the state directory from a backup, or"
                    " start a new run in another state directory with run.warm_start set to an exported encoder."
                ) from error

    def remove_orphans(self) -> None:
        """Remove blobs nothing in the journal names: left by a crash between a file and its commit."""
        named = set(self._fixed) | {blob.digest for blob in self.newest.server_state.values()}
        for version in self._versions.values():
            if version.retained:
                named |= _served(version)
        for digest in self._blobs.digests() - named:
            self._blobs.remove(digest)

    def retire(self, *, full_versions: int, deltas: int, pinned: frozenset[int] = frozenset()) -> None:
        """Remove blobs beyond retention, except whole versions in `pinned`. A removed version stays in the journal.

        A version's round artefacts stay as long as its full blob: who measures it needs both.
        """
        newest = self.newest.number
        kept = [v for v in self._versions.values() if v.retained]
        whole = [v for v in kept if v.number > newest - full_versions or v.number in pinned]
        keep_full = {v.full.digest for v in whole}
        keep_made = {made.blob.digest for v in whole for made in v.artefacts}
        keep_delta = {v.delta.digest for v in kept if v.delta and v.number > newest - deltas}
        state = {blob.digest for blob in self.newest.server_state.values()}
        keep = keep_full | keep_made | keep_delta | self._fixed | state
        forgotten = []
        for version in kept:
            if version.number == newest:
                continue
            for digest in _served(version) | {blob.digest for blob in version.server_state.values()}:
                if digest not in keep:
                    self._blobs.remove(digest)
            if not {version.full.digest, version.delta.digest if version.delta else ""} & keep:
                forgotten.append(version.number)
        if forgotten:
            self._journal.forget_version_blobs(forgotten)
            for version in self._journal.versions():
                self._versions[version.number] = version


def _served(version: VersionRecord) -> set[str]:
    """Digests of the blobs of a version that workers read."""
    served = {version.full.digest, *(made.blob.digest for made in version.artefacts)}
    return served if version.delta is None else served | {version.delta.digest}
