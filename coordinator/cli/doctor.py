"""`ssd-coordinator doctor`: what would keep the coordinator from running, before it is started. Changes nothing."""

from __future__ import annotations

import datetime as dt
import resource
import ssl
from collections.abc import Iterator

from coordinator.config.sections import CoordinatorConfig, refuse_changes
from coordinator.errors import RunConfigChanged, StorageFailed
from coordinator.runtime.open_files import OWN_FILES
from coordinator.store.journal.reading import read_model_size, read_run
from ssd.daemon.address import Address
from ssd.daemon.doctor.collector import examine_collector
from ssd.daemon.doctor.disk import UNKNOWN_MODEL, gather_disk, holder, judge_disk
from ssd.daemon.doctor.findings import Finding, fault, ok, warning
from ssd.daemon.doctor.identity import gather_identity, judge_identity
from ssd.daemon.doctor.network import judge_port, try_port
from ssd.daemon.doctor.software import examine_software
from ssd.trust.authority import LOOPBACK, CertificateRefused, hosts_of, is_signed_by
from ssd.trust.identity_files import IdentityFiles
from ssd.trust.names import Role

_NEW_CERTIFICATE = "have one made: `ssd-coordinator ca init` makes all, `ssd-coordinator ca issue` a new one"


def examine(config: CoordinatorConfig, patience: float, now: dt.datetime) -> Iterator[Finding]:
    """Every finding, in the order in which things are needed.

    Args:
        config: the coordinator's.
        patience: seconds for one check.
        now: aware time.
    """
    yield from examine_software(patience, "")
    yield from _identity(config, now)
    running = holder(config.coordinator.state_dir / "lock")
    listening = {
        "coordinator.listen": config.listen,
        "coordinator.http_listen": config.http_listen,
        "enrolment.listen": config.enrolment_listen,
    }
    for setting, address in listening.items():
        if address is not None:
            yield judge_port(
                try_port(setting, str(address), address.host, address.port, address.path), running
            )
    yield from examine_collector(config.tracing, patience)
    yield from judge_files(config.limits.max_connections, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    yield from _state(config)


def _identity(config: CoordinatorConfig, now: dt.datetime) -> Iterator[Finding]:
    section = config.transport
    if section.insecure:
        yield ok("tls", "off: only this machine can connect")
        return
    files = IdentityFiles(authority=section.authority, certificate=section.certificate, key=section.key)
    facts = gather_identity(files, now)
    yield from judge_identity(facts, frozenset({Role.COORDINATOR}), now, _NEW_CERTIFICATE)
    if not facts.problem:
        yield judge_names(hosts_of(section.certificate.read_bytes()), config.listen)
    if config.enrolment.listen:
        yield _authority_key(config)
    if config.http_identity is not None:
        certificate, key = config.http_identity
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
            yield ok("tls", f"HTTPS has {certificate}")
        except OSError as error:
            yield fault("tls", f"{certificate} and {key} cannot be used for HTTPS: {error}", "replace them")


def judge_names(hosts: tuple[str, ...], listen: Address) -> Finding:
    """Finding `tls`: whether other hosts can call the coordinator by a name in its certificate."""
    others = [host for host in hosts if host not in LOOPBACK]
    said = f"the certificate is made out to {', '.join(hosts)}"
    if not listen.is_local and not others:
        return warning(
            "tls", f"{said}, but {listen} is for other hosts",
            "have one made with the name they use: `ssd-coordinator ca issue --role coordinator --host NAME`",
        )  # fmt: skip
    return ok("tls", said)


def _authority_key(config: CoordinatorConfig) -> Finding:
    from ssd.trust.authority import Credential

    path = config.enrolment.authority_key
    try:
        certificate, key = config.transport.authority.read_bytes(), path.read_bytes()
        if Credential(certificate, key).matches() and is_signed_by(certificate, certificate):
            return ok("tls", f"{path} can sign for those who enrol")
        return fault(
            "tls", f"{path} is not the key of {config.transport.authority}", "put the authority's own there"
        )
    except (OSError, CertificateRefused) as error:
        detail = error.strerror if isinstance(error, OSError) else str(error)
        return fault(
            "tls", f"{path}: {detail}", "correct [enrolment] authority_key, or empty [enrolment] listen"
        )


def judge_files(connections: int, limit: int) -> Iterator[Finding]:
    """Finding `limits`.

    Args:
        connections: `limits.max_connections`.
        limit: the process's hard limit on open files.
    """
    if limit != resource.RLIM_INFINITY and limit < connections + OWN_FILES:
        yield warning(
            "limits", f"{limit} files may be open, and limits.max_connections is {connections}",
            "raise the hard limit (ulimit -Hn, LimitNOFILE in systemd) or lower limits.max_connections",
        )  # fmt: skip
    else:
        yield ok("limits", f"open files allow {connections} connections")


def _state(config: CoordinatorConfig) -> Iterator[Finding]:
    folder, limits = config.coordinator.state_dir, config.limits
    try:
        run, model = read_run(folder), read_model_size(folder)
    except StorageFailed as error:
        yield fault("disk", str(error), "look at it before the coordinator is started on it")
        return
    size = model or UNKNOWN_MODEL
    uploads = min(limits.staging_disk_bytes, size * config.round.cohort_size)
    kept = config.retention.full_versions + 1
    yield from judge_disk(
        gather_disk(folder),
        limits.min_free_bytes + kept * size + uploads,
        f"{kept} versions and a round's uploads" + ("" if model else " of a large model"),
    )
    if run is None:
        yield ok("run", "there is none yet: the first start creates it")
        return
    try:
        refuse_changes(run.config, config)
        yield ok("run", f"{run.run_id} accepts this configuration")
    except RunConfigChanged as error:
        yield fault("run", str(error).partition("\n")[0] + "; " + "; ".join(
            line.strip() for line in str(error).splitlines()[1:-1]
        ), "put the stored values back, or start a new run in another state_dir")  # fmt: skip
