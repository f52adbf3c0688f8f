"""What a participant of secure aggregation checks of every message before it does anything.

Each check is one call of `refuse_unless`; `tests/mutation/` takes them out one by one, and every time a test fails.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ssd.secagg.protocol import keys
from ssd.secagg.protocol.errors import AbortReason, Refused
from ssd.secagg.protocol.graph import PPM, Level, corrupt, honest_others
from ssd.secagg.protocol.layout import Layout
from ssd.secagg.protocol.messages import (
    Advert,
    Graph,
    Offer,
    Roster,
    SetProof,
    ShareDelivery,
    Survivors,
    digest,
)
from ssd.secagg.protocol.policy import AggregatorPolicy, ParticipantPolicy, RunTerms
from ssd.secagg.protocol.signatures import advert_is_signed, survivors_are_signed


def refuse_unless(holds: bool, reason: AbortReason, detail: str) -> None:
    """One check.

    Raises:
        Refused: it does not hold.
    """
    if not holds:
        raise Refused(reason, detail)


def check_terms(policy: ParticipantPolicy, offer: Offer) -> None:
    """Whether the offer is within the participant's terms."""
    refuse_unless(
        policy.admits(offer.level), AbortReason.LEVEL_TOO_LOW, f"level {offer.level} is not enough here"
    )
    refuse_unless(
        policy.min_participants <= offer.participants <= policy.max_participants,
        AbortReason.POLICY_PARTICIPANTS,
        f"{offer.participants} participants are outside {policy.min_participants}..{policy.max_participants}",
    )
    refuse_unless(
        policy.min_gamma_ppm <= offer.gamma_ppm < PPM,
        AbortReason.POLICY_CORRUPT,
        f"{offer.gamma_ppm} ppm assumed corrupt, at least {policy.min_gamma_ppm} are demanded",
    )
    refuse_unless(
        offer.delta_ppm <= policy.max_delta_ppm,
        AbortReason.POLICY_DROPOUT,
        f"{offer.delta_ppm} ppm dropouts, at most {policy.max_delta_ppm} are tolerated",
    )
    refuse_unless(
        offer.ring_bits in policy.ring_bits, AbortReason.POLICY_RING_BITS, f"{offer.ring_bits} bits"
    )
    refuse_unless(
        1 <= offer.max_total_weight <= policy.max_total_weight,
        AbortReason.POLICY_WEIGHT,
        f"a total weight of {offer.max_total_weight}, at most {policy.max_total_weight} is agreed to",
    )
    refuse_unless(
        offer.participants < 1 << (offer.ring_bits - 1),
        AbortReason.NO_HEADROOM,
        f"{offer.participants} participants wrap around {offer.ring_bits} bits with one step each",
    )
    refuse_unless(
        offer.graph is Graph.COMPLETE or policy.allow_ring,
        AbortReason.POLICY_GRAPH,
        "only the complete graph is agreed to",
    )


def check_run_terms(joined: RunTerms, offer: Offer) -> None:
    """Whether the offer is what the participant was joined when it joined the run."""
    refuse_unless(
        offer.level is joined.level,
        AbortReason.TERMS_CHANGED,
        f"the run's level is {joined.level}, not {offer.level}",
    )
    refuse_unless(
        offer.ring_bits == joined.ring_bits,
        AbortReason.TERMS_CHANGED,
        f"the run's ring has {joined.ring_bits} bits, not {offer.ring_bits}",
    )
    refuse_unless(
        offer.max_total_weight == joined.max_total_weight,
        AbortReason.TERMS_CHANGED,
        f"the run's rounds weigh {joined.max_total_weight} at most, not {offer.max_total_weight}",
    )
    refuse_unless(
        offer.participants <= joined.max_participants,
        AbortReason.TERMS_CHANGED,
        f"the run's rounds have {joined.max_participants} clients at most, no {offer.participants} participants",
    )


def check_roster(
    policy: ParticipantPolicy, offer: Offer, own: Advert, registered: Mapping[str, str], roster: Roster
) -> None:
    """Whether the roster holds enough participants with proper keys of their own.

    Args:
        policy: the participant's terms.
        offer: the round's.
        own: the participant's advert, as it sent it.
        registered: worker -> Ed25519 public key, of the pinned registry.
        roster: as received.
    """
    adverts = roster.adverts
    refuse_unless(
        policy.min_participants <= len(adverts) <= offer.participants,
        AbortReason.ROSTER_SIZE,
        f"{len(adverts)} participants",
    )
    refuse_unless(own in adverts, AbortReason.OWN_ADVERT, "the own advert is missing or altered")
    # One set for both kinds of keys: a channel key used as another's mask key is a lie too.
    once = [
        value for each in adverts for value in (each.channel_key, each.mask_key, each.nonce, each.commitment)
    ]
    refuse_unless(
        len(set(once)) == len(once), AbortReason.DUPLICATE_KEY, "two adverts share a key, nonce or commitment"
    )
    for advert in adverts:
        refuse_unless(
            keys.is_public(advert.channel_key) and keys.is_public(advert.mask_key),
            AbortReason.BAD_KEY,
            f"a key of {advert.name} is no point of large order",
        )
    if offer.level is Level.ACTIVE:
        _check_signatures(offer, registered, roster)


def _check_signatures(offer: Offer, registered: Mapping[str, str], roster: Roster) -> None:
    offer_digest = digest(offer)
    for advert in roster.adverts:
        key = registered.get(advert.name, "")
        refuse_unless(key != "", AbortReason.NOT_REGISTERED, f"{advert.name} is not in the pinned registry")
        refuse_unless(
            advert_is_signed(key, offer_digest, advert),
            AbortReason.BAD_SIGNATURE,
            f"the advert of {advert.name} is not signed by it for this offer",
        )


def check_honest(policy: ParticipantPolicy, layout: Layout, registered: int) -> None:
    """Whether the roster hides the participant, however the coordinator chose it out of the registry.

    Whoever chooses the roster can have everybody in it who is on his side: those assumed corrupt are a share of the
    registry, not of the roster.

    Args:
        policy: the participant's terms.
        layout: of the roster, in level `active`.
        registered: participants of the pinned registry.
    """
    feared = corrupt(registered, policy.min_gamma_ppm)
    refuse_unless(
        layout.corrupt >= feared,
        AbortReason.POLICY_CORRUPT,
        f"the thresholds withstand {layout.corrupt} corrupt of {len(layout.adverts)}; of {registered} registered"
        f" {feared} may be, and all of them in the roster",
    )
    others = honest_others(len(layout.adverts), layout.corrupt, layout.offer.delta_ppm)
    refuse_unless(
        others >= policy.min_honest_others,
        AbortReason.TOO_FEW_HONEST,
        f"{others} honest others are certain in the smallest sum, {policy.min_honest_others} are demanded",
    )


def check_delivery(policy: ParticipantPolicy, layout: Layout, name: str, delivery: ShareDelivery) -> None:
    """Whether enough shared their keys, and exactly the neighbours' shares came."""
    sharers, least = frozenset(delivery.sharers), least_survivors(policy, layout)
    near = sharers.intersection(layout.neighbours(name))
    refuse_unless(
        delivery.recipient == name, AbortReason.WRONG_RECIPIENT, "shares of another participant came"
    )
    refuse_unless(
        sharers <= layout.adverts.keys(), AbortReason.SHARERS_UNKNOWN, "a sharer is not in the roster"
    )
    refuse_unless(name in sharers, AbortReason.SHARERS_WITHOUT_SELF, "the own shares were not counted")
    refuse_unless(len(sharers) >= least, AbortReason.TOO_FEW_SHARERS, f"{len(sharers)}, {least} are needed")
    refuse_unless(
        len(near) + 1 >= layout.threshold,
        AbortReason.TOO_FEW_SHARERS,
        f"{len(near)} neighbours shared: {layout.threshold} holders are needed",
    )
    refuse_unless(
        {entry.peer for entry in delivery.entries} == near,
        AbortReason.SHARES_MISSING,
        "there are not exactly the shares of the neighbours that shared",
    )


def check_survivors(
    policy: ParticipantPolicy,
    layout: Layout,
    name: str,
    sharers: tuple[str, ...],
    survivors: Survivors,
) -> None:
    """Whether the participant and enough others are in the survivor set, and nobody who cannot be."""
    names, least = frozenset(survivors.names), least_survivors(policy, layout)
    refuse_unless(
        survivors.sharers_digest == keys.sharers_digest(layout.context, sharers),
        AbortReason.SHARERS_DIFFER,
        "the survivor set belongs to other sharers",
    )
    refuse_unless(
        names <= frozenset(sharers), AbortReason.SURVIVORS_UNKNOWN, "a survivor did not share its keys"
    )
    refuse_unless(name in names, AbortReason.SURVIVORS_WITHOUT_SELF, "this participant was declared dropped")
    refuse_unless(len(names) >= least, AbortReason.TOO_FEW_SURVIVORS, f"{len(names)}, {least} are needed")


def check_change(policy: ParticipantPolicy, signed: Iterable[Collection[str]], survivors: Survivors) -> None:
    """Whether the survivor set differs by nobody, or by enough, from each set that was signed lately.

    Two sums of rounds whose sets differ by one participant differ by that one's update, as nearly as the model stood
    still between them.

    Args:
        policy: the participant's terms.
        signed: survivor sets that it signed.
        survivors: as received.
    """
    names = frozenset(survivors.names)
    for before in signed:
        change = len(names.symmetric_difference(before))
        refuse_unless(
            change == 0 or change >= policy.min_set_change,
            AbortReason.SET_TOO_SIMILAR,
            f"{change} came or went since a sum that was signed lately, {policy.min_set_change} are demanded",
        )


def check_proof(layout: Layout, survivors: Survivors, registered: Mapping[str, str], proof: SetProof) -> None:
    """Whether so many survivors signed this survivor set that no other can have as many."""
    for each in proof.signatures:
        refuse_unless(
            each.name in survivors.names,
            AbortReason.FOREIGN_SIGNATURE,
            f"{each.name} is no survivor",
        )
        refuse_unless(
            survivors_are_signed(registered.get(each.name, ""), survivors, each),
            AbortReason.BAD_SIGNATURE,
            f"{each.name} did not sign this survivor set",
        )
    refuse_unless(
        len(proof.signatures) >= layout.quorum,
        AbortReason.TOO_FEW_SIGNATURES,
        f"{len(proof.signatures)}, {layout.quorum} are needed",
    )


def least_survivors(policy: ParticipantPolicy | AggregatorPolicy, layout: Layout) -> int:
    """The smallest survivor set that is answered or asked for.

    The own minimum, what the tolerated dropouts leave, or as many as hold enough honest participants' noise.
    """
    noisy = policy.min_honest + layout.corrupt if policy.min_honest else 0
    return max(policy.min_participants, layout.fewest, noisy)
