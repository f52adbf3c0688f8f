"""Which clients this worker hosts, and what the training process is told of their data. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ssd.daemon.config_loading import check_client_ids
from ssd.data.images.errors import DataError
from ssd.data.manifest.table import TEST, Manifest, read_manifest
from worker.config.sections import DataSection
from worker.errors import ConfigInvalid

Json = Any


def hosted_clients(data: DataSection) -> tuple[str, ...]:
    """The hosted clients' ids, sorted; `["*"]` resolved.

    Raises:
        ConfigInvalid: there is none, or the partition file or manifest cannot be read or does not name one of them.
    """
    if data.kind == "folder":
        return tuple(sorted(data.folders if data.clients == ("*",) else data.clients))
    if data.kind == "manifest":
        return _listed_clients(data)
    if data.partition is None:
        return tuple(sorted(data.clients))
    known = _partition_clients(data.partition).keys()
    if data.clients == ("*",):
        return tuple(sorted(known))
    unknown = sorted(set(data.clients) - known)
    if unknown:
        raise ConfigInvalid(f"[data] clients: {data.partition} does not name {', '.join(unknown[:5])}")
    return tuple(sorted(data.clients))


def has_labels(data: DataSection) -> bool:
    """Whether the clients' images have labels that mean the same at every client."""
    if data.kind == "folder":
        return data.labels == "folders" and bool(data.classes)
    if data.kind == "manifest":
        return data.labels == "column" and bool(data.classes)
    return data.kind != "none"


def has_client_tests(data: DataSection, clients: Collection[str]) -> bool:
    """Whether one of the hosted clients, at least, has test images of its own.

    Raises:
        ConfigInvalid: the partition file cannot be read.
    """
    if data.kind == "folder":
        return not data.test_folders.keys().isdisjoint(clients)
    if data.kind == "manifest":
        return has_labels(data) and any(_manifest(data).of(client, TEST) for client in clients)
    if data.kind == "none" or data.partition is None:
        return False
    rows = _partition_clients(data.partition)
    try:
        return any(rows[client].get("test") for client in clients)
    except (KeyError, AttributeError) as error:
        raise ConfigInvalid(f"[data] partition: {data.partition} is no partition file: {error}") from error


def _listed_clients(data: DataSection) -> tuple[str, ...]:
    manifest = _manifest(data)
    known = manifest.clients()
    if "client" not in manifest.has:
        if len(data.clients) != 1 or data.clients == ("*",):
            raise ConfigInvalid(
                f"[data] clients: the manifest {manifest.file} has no client column: name the one client whose images "
                "these are, or the column in [data.columns] client"
            )
        return data.clients
    if data.clients != ("*",):
        unknown = sorted(set(data.clients) - set(known))
        if unknown:
            raise ConfigInvalid(
                f"[data] clients: the manifest {manifest.file} has no rows of {', '.join(unknown[:5])}"
            )
        return tuple(sorted(data.clients))
    if not known:
        raise ConfigInvalid(f"[data] clients: the client column of the manifest {manifest.file} is empty")
    try:
        check_client_ids(known)
    except ValueError as error:
        raise ConfigInvalid(
            f"[data] manifest: {manifest.file}: {error}; rename the clients in the table"
        ) from error
    return known


def _manifest(data: DataSection) -> Manifest:
    assert data.manifest is not None  # the configuration was checked
    try:
        return read_manifest(data.manifest, data.columns)
    except DataError as error:
        raise ConfigInvalid(f"[data] manifest: {error}") from error


def _partition_clients(path: Path) -> dict[str, Json]:
    try:
        rows = json.loads(path.read_bytes())["clients"]
        rows.keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigInvalid(f"[data] partition: {path.absolute()} is no partition file: {error}") from error
    return dict(rows)


def data_fields(data: DataSection, index_dir: str) -> dict[str, Json] | None:
    """The fields of `ssd.data.open.DataConfig` as plain values; None without images."""
    if data.kind == "none":
        return None
    out = data.model_dump(mode="json", exclude={"clients", "evaluates"})
    if out["max_pixels"] is None:
        del out["max_pixels"]
    return {**out, "index_dir": index_dir}
