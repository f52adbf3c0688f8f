"""Creating a run: what its method declares is checked, version 0 is made, and both are journaled."""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from coordinator.config.new_run import NewRun
from coordinator.core.policy import Mode
from coordinator.errors import ConfigInvalid, MethodRefused
from coordinator.ports.blobs import Blobs
from coordinator.ports.clock import Clock
from coordinator.ports.journal import Journal
from coordinator.ports.method_host import MethodHost
from coordinator.ports.records import RunRecord, VersionRecord
from coordinator.rounds.preconditions import obstacles
from coordinator.versions.privacy import Privacy
from ssd.digest import byte_view, canonical_json
from ssd.privacy.noise import NoisePlan
from ssd.privacy.settings import PrivacyRefused
from ssd.updates.declaration import Declaration, DeclarationError
from ssd_wire.messages import Artefact, BlobRef

SCRATCH_PREFIX = "init-"
"""Directories in the state directory that hold what the method host makes for version 0; removed at start."""


async def checked_declaration(new: NewRun, host: MethodHost) -> Declaration:
    """What the method declares, if a run can be made of it. Nothing is written.

    Raises:
        ConfigInvalid, MethodRefused: it cannot, and what to change.
    """
    method = new.method.name
    try:
        declaration = Declaration.from_json(await host.declare(method, dict(new.method.config)))
        Declaration.from_bytes(canonical_json(declaration.to_json()))  # as every worker will read it
    except DeclarationError as error:
        raise MethodRefused(f"method {method} declares itself badly: {error}") from error
    if declaration.scaling is not None and not (new.run.clients or new.run.expected_clients):
        raise ConfigInvalid(
            f"method {method} gives every client its own dimensions: set run.expected_clients (or name them in"
            " run.clients), so that they can be shared out"
        )
    found = list(obstacles(declaration, Mode(new.run.mode), new.level, private=new.private))
    if found:
        raise ConfigInvalid("this run cannot be created: " + "; ".join(found))
    privacy_of(new.noise(declaration), os.urandom)
    return declaration


async def create_run(
    new: NewRun, journal: Journal, blobs: Blobs, host: MethodHost, clock: Clock
) -> RunRecord:
    """Make version 0 and journal the run.

    Raises:
        ConfigInvalid, MethodRefused, StorageFailed: nothing was journaled.
    """
    method, method_config = new.method.name, dict(new.method.config)
    declaration = await checked_declaration(new, host)
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=new.state_dir))
    try:
        initial = await host.initial(method, method_config, new.run.seed, new.run.warm_start, scratch)
        full = _store_file(blobs, initial.vector, declaration.spec.size)
        digest = hashlib.sha256(bytes.fromhex(declaration.spec.digest))
        digest.update(initial.vector.read_bytes())
        artefacts = tuple(
            Artefact(name=name, blob=_store_file(blobs, path, math.prod(shape)), shape=shape)
            for name, (path, shape) in sorted(initial.artefacts.items())
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    document = canonical_json(declaration.to_json())
    writer = blobs.create()
    writer.write(document)
    run = RunRecord(
        run_id=secrets.token_hex(8),
        created_at=clock.wall(),
        config=new.config,
        declaration=declaration.to_json(),
        declaration_blob=writer.finish(),
        declaration_digest=declaration.digest,
        artefacts=artefacts,
    )
    zero = VersionRecord(
        number=0,
        model_digest=digest.hexdigest(),
        full=full,
        delta=None,
        committed_at=clock.wall(),
    )
    # First the clients: a crash in between leaves a registry that the next start completes.
    if new.run.clients:
        journal.register_clients(new.run.clients, clock.wall())
    journal.create_run(run, zero)
    return run


def _store_file(blobs: Blobs, path: Path, values: int) -> BlobRef:
    content = np.fromfile(path, dtype="<f4")
    if content.size != values or not np.isfinite(content).all():
        raise MethodRefused(
            f"the method's {path.name} should hold {values} finite float32 values, not {content.size}"
        )
    writer = blobs.create()
    try:
        writer.write(byte_view(content))
        return writer.finish()
    except BaseException:
        writer.discard()
        raise


def privacy_of(noise: NoisePlan | None, entropy: Callable[[int], bytes]) -> Privacy | None:
    """The run's noise and its account; None: the run has none.

    Args:
        noise: how much a sum holds; None: none.
        entropy: n secret uniform bytes.

    Raises:
        ConfigInvalid: it cannot be accounted for here.
    """
    if noise is None:
        return None
    try:
        return Privacy(noise, entropy)
    except PrivacyRefused as error:
        raise ConfigInvalid(f"[privacy] {error}") from error
