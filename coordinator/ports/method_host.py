"""The port to the method host, the process that may import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from coordinator.ports.method_host_files import ReductionFiles, ResultFiles
from coordinator.ports.records import (
    Json,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class InitialState:
    """What the method host made for version 0."""

    vector: Path
    artefacts: Mapping[str, tuple[Path, tuple[int, ...]]]


class MethodHost(Protocol):
    """The one server-side process that may import torch. A crash of it raises `MethodHostFailed`; the next
    call starts it again. Errors the method itself reports raise `MethodRefused` with its message.
    """

    async def declare(self, method: str, config: Mapping[str, Json]) -> Mapping[str, Json]:
        """`Declaration.to_json()` of the method with this configuration."""
        ...

    async def initial(
        self, method: str, config: Mapping[str, Json], seed: int, warm_start: Path | None, out: Path
    ) -> InitialState: ...

    async def export(
        self,
        method: str,
        config: Mapping[str, Json],
        vector: Path,
        out: Path,
        metadata: Mapping[str, str],
        part: str | None = None,
    ) -> None: ...

    async def after_reduce(
        self, method: str, config: Mapping[str, Json], files: ReductionFiles, out: Path
    ) -> ResultFiles:
        """What the method's server hook makes of a reduction, in files of the directory `out`. A hook that fails
        raises `HookFailed`, a result that cannot be written `StorageFailed`.
        """
        ...

    async def close(self) -> None: ...
