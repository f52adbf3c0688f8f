"""`ssd-worker doctor`: what would keep this worker from working, before it is started. Changes nothing."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path

from ssd.daemon.address import parse_address, proxy_of
from ssd.daemon.doctor.collector import examine_collector
from ssd.daemon.doctor.disk import UNKNOWN_MODEL, gather_disk, holder, judge_disk
from ssd.daemon.doctor.findings import Finding, fault, ok
from ssd.daemon.doctor.identity import gather_identity, judge_identity
from ssd.daemon.doctor.network import judge_handshake, judge_reach, reach
from ssd.daemon.doctor.software import examine_software
from ssd.daemon.printable import printable
from ssd.data.images.errors import DataError
from ssd.trust.authority import LOCAL_NAME, CertificateRefused
from ssd.trust.diagnosis import Peer, diagnose
from ssd.trust.identity_files import IdentityFiles, read_identity
from ssd.trust.names import Role
from ssd.trust.registry_pin import PIN_FILE, REGISTRY_FILE, SIGNING_KEY_FILE
from worker.config.hosted_clients import hosted_clients
from worker.config.sections import DataSection, WorkerConfig
from worker.errors import ConfigInvalid

_ENROL = "run `ssd-worker enroll` with a token of the federation's operator"


def examine(config: WorkerConfig, patience: float, now: dt.datetime) -> Iterator[Finding]:
    """Every finding, in the order in which things are needed.

    Args:
        config: the worker's.
        patience: seconds for one check.
        now: aware time.
    """
    yield from examine_software(patience, config.worker.device)
    yield from _connection(config, patience, now)
    yield from _disk(config)
    yield from _data(config, patience)
    yield from _methods(config)
    yield from _participation(config)
    yield from examine_collector(config.tracing, patience)


def _connection(config: WorkerConfig, patience: float, now: dt.datetime) -> Iterator[Finding]:
    address = parse_address(config.worker.coordinator)
    name = config.transport.server_name or address.host or LOCAL_NAME
    peer = Peer(host=address.host, port=address.port, path=address.path, name=name)
    files = None if config.transport.insecure else IdentityFiles.in_folder(config.identity_dir, "worker")
    identity, usable = None, True
    if files is not None:
        roles = frozenset({Role.WORKER} if config.data.clients else {Role.WORKER, Role.EVALUATOR})
        yield from judge_identity(gather_identity(files, now), roles, now, _ENROL)
        try:
            identity = read_identity(files, now)
        except CertificateRefused:
            usable = False
    else:
        yield ok("tls", "off: the coordinator is on this machine")
    proxy = proxy_of(address, config.transport.proxy, os.environ)
    if proxy:
        # Without a password that may stand in it.
        shown = proxy.rpartition("//")[2].rpartition("@")[2].rstrip("/")
        yield ok("network", f"{address} is called through the proxy {printable(shown)} ([transport] proxy)")
        try:
            way = parse_address(shown)
        except ValueError as error:
            yield fault(
                "network",
                f"the proxy is none: {printable(str(error))}",
                "correct [transport] proxy, or https_proxy",
            )
            return
        reached = reach(Peer(host=way.host, port=way.port, path="", name=way.host), patience)
    else:
        reached = reach(peer, patience)
    yield from judge_reach(reached)
    if reached.unresolved or reached.failed or not usable:
        return
    from worker.rpc.asking import ask_health

    answer = ask_health(
        config.worker.coordinator, identity, config.transport.server_name, patience, config.transport.proxy
    )
    found = None if answer.serving or proxy else diagnose(peer, files, patience)
    yield from judge_handshake(found, answer.serving, f"{answer.reason}: {answer.detail}")


def _disk(config: WorkerConfig) -> Iterator[Finding]:
    folder = config.worker.state_dir
    try:
        model = max((path.stat().st_size for path in (folder / "versions").iterdir()), default=0)
    except OSError:
        model = 0
    held = max(1, len(config.data.folders) or len(config.data.clients))
    needed = (model or UNKNOWN_MODEL) * (config.worker.max_cached_versions + 1 + held)
    yield from judge_disk(
        gather_disk(folder), needed, f"{config.worker.max_cached_versions + 1} versions and {held} updates"
    )
    process = holder(folder / "lock")
    if process is not None:
        yield ok("disk", f"{folder} is in use: a worker is running (process {process})")


def _data(config: WorkerConfig, patience: float) -> Iterator[Finding]:
    from worker.cli.doctor_images import gather_folder, judge_folder

    data = config.data
    try:
        clients = hosted_clients(data)
    except ConfigInvalid as error:
        yield fault("data", str(error), "correct [data] in the configuration, or make the partition again")
        return
    if data.kind == "manifest":
        yield from _listed(data, clients, patience)
        return
    if data.kind != "folder":
        yield ok("data", f"{data.kind}: {len(clients)} clients")
        if data.root is not None and not data.root.is_dir() and not data.download:
            yield fault(
                "data",
                f"{data.root.absolute()}: no such folder",
                "correct [data] root, or set download = true",
            )
        return
    folders = {client: data.folders[client] for client in clients}
    if data.probe is not None:
        folders["(probe)"] = data.probe
    for client, path in data.test_folders.items():
        folders[f"{client} (test)"] = path
    for client, path in folders.items():
        limit = {} if data.max_pixels is None else {"max_pixels": data.max_pixels}
        yield from judge_folder(
            gather_folder(client, path, patience / len(folders), window=data.window, **limit)
        )


def _listed(data: DataSection, clients: tuple[str, ...], patience: float) -> Iterator[Finding]:
    """The images that a manifest names, client by client."""
    from ssd.data.containers.listed import Listed
    from ssd.data.containers.open import container
    from ssd.data.manifest.table import TRAIN, read_manifest
    from worker.cli.doctor_images import gather_folder, judge_folder

    assert data.manifest is not None  # the clients were read from it
    manifest = read_manifest(data.manifest, data.columns)
    limit = {} if data.max_pixels is None else {"max_pixels": data.max_pixels}
    for client in clients:
        try:
            names = [row.path for row in manifest.of(client, TRAIN)]
            whole = container(data.manifest.parent if data.root is None else data.root)
        except DataError as error:
            yield fault("data", f"{client}: {error}", "correct [data] root and manifest")
            return
        files = Listed(whole, names, manifest.file)
        yield from judge_folder(
            gather_folder(client, files, patience / len(clients), window=data.window, **limit)
        )


def _methods(config: WorkerConfig) -> Iterator[Finding]:
    for name, path in config.methods.items():
        if os.access(path, os.R_OK) and path.is_file():
            yield ok("methods", f"{name}: {path}")
        else:
            yield fault(
                "methods",
                f"{name}: {path.absolute()} is no file that can be read",
                f"correct [methods] {name}",
            )


def _participation(config: WorkerConfig) -> Iterator[Finding]:
    own, folder = config.secure_aggregation, config.identity_dir
    if own.level != "active":
        return
    wanted: tuple[tuple[Path, str], ...] = (
        (folder / SIGNING_KEY_FILE, "make a signing key with `ssd-worker identity init`"),
        (folder / PIN_FILE, "name the registry's signer with `ssd-worker identity init --signer KEY`"),
        (own.registry or folder / REGISTRY_FILE, "put the signed registry of participants there"),
    )
    missing = [(path, advice) for path, advice in wanted if not path.is_file()]
    for path, advice in missing:
        yield fault("participants", f"{path}: no such file, and secure_aggregation.level is active", advice)
    if not missing:
        yield ok("participants", f"signing key, pin and registry are in {folder}")
