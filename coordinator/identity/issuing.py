"""Whether this coordinator issues certificates, which is whether it can read the authority's key."""

from __future__ import annotations

import logging

from coordinator.config.sections import CoordinatorConfig
from coordinator.identity.authority import load_authority
from coordinator.identity.enrolment import Bind, CertificateDesk, Issuer
from coordinator.ports.storage import Clock
from coordinator.ports.trust import TrustStore
from coordinator.telemetry.metrics import CoordinatorMetrics
from ssd.daemon.logs import event as log_event

log = logging.getLogger(__name__)


def certificate_desk(
    config: CoordinatorConfig, trust: TrustStore, bind: Bind, clock: Clock, metrics: CoordinatorMetrics
) -> CertificateDesk | None:
    """Where certificates are asked for; None if this coordinator issues none.

    An operator who wants the authority's key elsewhere takes it away: then nobody enrols and nobody renews here, and
    certificates come from `ca issue`.

    Raises:
        AuthorityRefused: hosts are to enrol, or a key is there, but it cannot be used.
    """
    if config.transport.insecure:
        return None
    key = config.enrolment.authority_key
    if config.enrolment_listen is None and not key.exists():
        log_event(log, logging.INFO, "issues_no_certificates", detail=f"there is no authority's key in {key}")
        return None
    authority = load_authority(config.transport.authority, key)
    issuer = Issuer(authority=authority, days=config.enrolment.certificate_days)
    return CertificateDesk(issuer, trust, bind, clock, metrics)
