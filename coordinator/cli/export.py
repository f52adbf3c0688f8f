"""From a running coordinator to an encoder file: fetch, check, and let the method host write it."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from coordinator.errors import BlobCorrupt, MethodRefused, StorageFailed
from coordinator.method_host.client import SubprocessMethodHost
from coordinator.rpc.operator.client import OperatorClient, VersionFound
from ssd.method.registry import MethodError, built_in_name
from ssd.updates.declaration import Declaration, DeclarationError
from ssd.updates.spec import model_digest


def export(
    client: OperatorClient,
    out: Path,
    *,
    number: int | None,
    method: str | None,
    run_id: str,
    part: str | None = None,
    trained_on: str | None = None,
) -> VersionFound:
    """Write the encoder of a version, or another part of it, as `safetensors`.

    Args:
        client: the coordinator to ask.
        out: the new file.
        number: which version; None: the newest.
        method: name or file of the method, as the operator names it; None: the built-in method that the run's declaration
            names. A file that a coordinator names is never run.
        run_id: goes into the file's metadata.
        part: which part, such as `projector` or `head`; None: the encoder.
        trained_on: the data set's name for the file's metadata; only the clients know it, so the exporter says it.

    Returns:
        The version that was written.

    Raises:
        BlobCorrupt: what arrived is not the version it claims to be.
        MethodRefused: the method cannot export it, or is not built in and nobody here named its file.
        StorageFailed: the file cannot be written.
    """
    found = client.version(number)
    declaration = _declared(found)
    chosen = method or _built_in(declaration)
    descriptor, name = _temporary(out)
    vector = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            client.download(found, file)
        values = np.memmap(vector, dtype="<f4", mode="r")
        if (
            values.size != declaration.spec.size
            or model_digest(declaration.spec, values) != found.model_digest
        ):
            raise BlobCorrupt(f"version {found.number} does not have the digest it is known by")
        metadata = {
            "run": run_id,
            "version": str(found.number),
            "model_digest": found.model_digest,
            "declaration_digest": declaration.digest,
            "config": json.dumps(dict(declaration.config), sort_keys=True),
        }
        if found.provenance:
            metadata["provenance"] = json.dumps(dict(found.provenance), sort_keys=True)
        if trained_on is not None:
            metadata["trained_on"] = trained_on
        asyncio.run(_write(chosen, declaration, vector, out.absolute(), metadata, part))
    finally:
        vector.unlink(missing_ok=True)
    return found


def _declared(found: VersionFound) -> Declaration:
    try:
        return Declaration.from_bytes(found.declaration)
    except DeclarationError as error:
        raise MethodRefused(f"the coordinator sent no declaration of a method: {error}") from error


def _built_in(declaration: Declaration) -> str:
    try:
        return built_in_name(declaration.method, "; if you have the method's file, name it with --method")
    except MethodError as error:
        raise MethodRefused(str(error)) from error


async def _write(
    method: str,
    declaration: Declaration,
    vector: Path,
    out: Path,
    metadata: dict[str, str],
    part: str | None,
) -> None:
    host = SubprocessMethodHost()
    try:
        await host.export(method, declaration.config, vector, out, metadata, part)
    finally:
        await host.close()


def _temporary(out: Path) -> tuple[int, str]:
    try:
        return tempfile.mkstemp(dir=out.absolute().parent, prefix=f".{out.name}.", suffix=".f32")
    except OSError as error:
        raise StorageFailed(f"{out.parent} cannot be written: {error.strerror}") from error
