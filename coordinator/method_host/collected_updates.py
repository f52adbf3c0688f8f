"""Single clients' values on their way to a server hook: on disk, because a cohort of them need not fit in memory.

Nothing here outlives the process: after a restart the workers upload a journaled set again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from coordinator.ports.method_host_files import CollectedFiles
from coordinator.store.failures import storage_failed
from ssd.digest import Buffer, byte_view
from ssd.method_host.hook import collected_groups_layout, layout_size, statistics_layout
from ssd.method_host.npy import npy_header
from ssd.updates.fold import FoldPlan


class Spool:
    """The collected values of the accepted updates of one attempt.

    Args:
        directory: its own; whatever is in it goes.
        plan: the layout of an update.

    Raises:
        StorageFailed: the directory cannot be emptied.
    """

    def __init__(self, directory: Path, plan: FoldPlan) -> None:
        self._directory = directory
        self._plan = plan
        declaration = plan.declaration
        self._groups = frozenset(collected_groups_layout(declaration))
        self._values = layout_size(collected_groups_layout(declaration))
        collected = statistics_layout(declaration, collected=True)
        self._statistics = [each.where for each in plan.statistics if each.name in collected]
        self._entries: dict[str, CollectedFiles] = {}
        self.clear()

    def clear(self) -> None:
        """Forget everything.

        Raises:
            StorageFailed: the directory cannot be emptied; call it again.
        """
        self._entries = {}
        try:
            shutil.rmtree(self._directory, ignore_errors=False)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise storage_failed(error, self._directory, "clearing collected updates") from error
        try:
            self._directory.mkdir(parents=True)
        except OSError as error:
            raise storage_failed(error, self._directory, "making room for collected updates") from error

    def add(self, client: str, weight: int, body: Buffer) -> None:
        """Keep what the hook may see of a checked update.

        Raises:
            StorageFailed: nothing was added; call it again.
        """
        number = len(self._entries)
        entry = CollectedFiles(
            client=client,
            weight=weight,
            values=self._directory / f"{number}.values.npy",
            statistics=self._directory / f"{number}.statistics.npy",
        )
        encoded, statistics = self._plan.split_update(body)
        kept = np.concatenate([np.empty(0), *(statistics[where] for where in self._statistics)])
        try:
            with entry.values.open("wb") as file:
                file.write(npy_header((self._values,), "<f4"))
                for piece in self._pieces(encoded):
                    file.write(piece)
            with entry.statistics.open("wb") as file:
                file.write(npy_header(kept.shape, "<f8"))
                file.write(byte_view(kept))
        except OSError as error:
            raise storage_failed(error, entry.values, "keeping a collected update") from error
        self._entries[client] = entry

    def _pieces(self, encoded: memoryview) -> Iterator[memoryview]:
        if not self._groups:
            return
        for group, _, values in self._plan.iter_update(encoded):
            if group.name in self._groups:
                yield byte_view(values)

    def entries(self) -> tuple[CollectedFiles, ...]:
        """What was added, in client-id order."""
        return tuple(self._entries[client] for client in sorted(self._entries))
