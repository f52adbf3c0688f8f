"""The offer of a masked sum to its participants, and the check of what they upload for it."""

from __future__ import annotations

from coordinator.config.secure_settings import SecureSettings
from coordinator.core import effects
from coordinator.errors import ClientFault, Reason
from coordinator.secure_aggregation.participant_registry import check_entry
from coordinator.secure_aggregation.present import PresentAttempt
from coordinator.workers.sessions import Session
from ssd.secagg.numbers.config_digest import config_digest
from ssd.secagg.numbers.masked_plan import MaskedPlan
from ssd.secagg.protocol.graph import corrupt, fewest_survivors
from ssd.secagg.protocol.messages import Graph, Offer
from ssd.trust.participants import Registry
from ssd_wire.uploads import Envelope

COMPLETE_UP_TO = 200
"""Participants beyond which everybody's neighbours are a few on a ring instead of all."""
MILLION = 1_000_000


def make_offer(
    settings: SecureSettings,
    plan: MaskedPlan,
    opening: effects.OpenAttempt,
    round_id: bytes,
    base_digest: str,
    task_digest: str,
    participants: int,
    registered: int,
) -> Offer:
    """What participants are offered to take part in: everything that must not differ between them.

    Args:
        settings: of secure aggregation.
        plan: how the masked vector is laid out.
        opening: the attempt.
        round_id: of the attempt, 16 bytes.
        base_digest: model digest of the base, hex.
        task_digest: of the task, hex.
        participants: the most there may be.
        registered: participants of the signed registry, of whom a share is assumed corrupt; 0: there is no registry.
    """
    delta_ppm = round(settings.section.tolerated_dropout * MILLION)
    gamma_ppm = round(settings.section.assumed_corrupt * MILLION)
    if registered:
        # All corrupt ones of the registry may be in the roster, also in one that some did not join.
        feared = corrupt(registered, gamma_ppm)
        gamma_ppm = max(gamma_ppm, -(-feared * MILLION // fewest_survivors(participants, delta_ppm)))
    return Offer(
        round_id=round_id,
        level=settings.level,
        model_digest=bytes.fromhex(base_digest),
        config_digest=config_digest(plan.digest, task_digest),
        round=opening.round,
        attempt=opening.attempt,
        participants=participants,
        gamma_ppm=min(gamma_ppm, MILLION - 1),
        delta_ppm=delta_ppm,
        graph=Graph.COMPLETE if participants <= COMPLETE_UP_TO else Graph.RING,
        ring_bits=settings.section.ring_bits,
        max_total_weight=plan.max_total_weight,
    )


def check_masked_upload(
    present: PresentAttempt | None,
    session: Session,
    envelope: Envelope,
    settings: SecureSettings,
    registry: Registry | None,
) -> None:
    """Refuse a masked upload before a byte of its body is taken.

    Args:
        present: the attempt under way.
        session: whose upload it is.
        envelope: what it says.
        settings: of secure aggregation.
        registry: of the attempt's participants, in level active.

    Raises:
        ClientFault: it is of another try, set or sender than can be added now.
    """
    if present is None or envelope.secure_round != present.round_id:
        raise ClientFault(Reason.STALE_ATTEMPT, "the masks belong to another try than the present one")
    clients = present.machine.may_upload(session.worker)
    if clients is None:
        raise ClientFault(
            Reason.NOT_A_PARTICIPANT,
            "this worker's keys are not among those that this sum is masked with",
        )
    if envelope.sharers_digest != present.machine.sharers_digest:
        raise ClientFault(Reason.WRONG_SHARERS, "the masks are not those that would cancel in this sum")
    outside = sorted(set(envelope.names) - set(clients))
    if outside:
        raise ClientFault(
            Reason.CLIENT_NOT_INVITED, f"client {outside[0]} was not this worker's when the try began"
        )
    if registry is not None:
        cap = settings.numbers.max_client_weight
        check_entry(registry, session.worker, envelope.names, cap)
    if not settings.elastic and set(envelope.names) != set(clients):
        raise ClientFault(
            Reason.MALFORMED_MESSAGE,
            f"a worker uploads once, with all its {len(clients)} clients of the cohort",
        )
