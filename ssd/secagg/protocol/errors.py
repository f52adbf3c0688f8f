"""Why a round of secure aggregation stops: three exceptions by who is concerned, one list of stable reasons.

No reason, detail or exception ever carries key material, shares or ciphertexts: details are logged and sent.
"""

from __future__ import annotations

from enum import StrEnum


class AbortReason(StrEnum):
    """Stable codes: metric labels, wire values, and headings of `docs/secure-aggregation.md`."""

    MALFORMED_MESSAGE = "malformed_message"
    """Not the one canonical spelling of a message."""
    UNEXPECTED_MESSAGE = "unexpected_message"
    """A message that has no place in the present state, or after the end."""

    LEVEL_TOO_LOW = "level_too_low"
    """The offer protects less than the participant demands."""
    POLICY_PARTICIPANTS = "policy_participants"
    """The offer allows more participants than the participant's policy, or fewer than it demands."""
    POLICY_CORRUPT = "policy_corrupt"
    """The offer assumes fewer corrupt participants than the participant does."""
    POLICY_DROPOUT = "policy_dropout"
    """The offer tolerates more dropouts than the participant does."""
    POLICY_RING_BITS = "policy_ring_bits"
    """The width of the ring is none the participant allows."""
    POLICY_WEIGHT = "policy_weight"
    """The total weight is above what the participant allows, or its own clients' above what its entry in the registry does."""
    POLICY_GRAPH = "policy_graph"
    """The participant does not take part on a sparse graph."""
    NO_HEADROOM = "no_headroom"
    """The total weight could wrap around the ring."""
    NO_IDENTITY = "no_identity"
    """Level `active` needs a signing key that the pinned registry knows."""
    ROUND_SEEN = "round_seen"
    """The round id was used before: round keys are never made twice."""
    BASE_OPENED = "base_opened"
    """A sum on this model was opened already: a second one could differ from it by one participant."""
    MODEL_DIFFERS = "model_differs"
    """The participant holds another model than the offer names."""
    CONFIG_DIFFERS = "config_differs"
    """The participant holds another configuration than the offer names."""
    TERMS_CHANGED = "terms_changed"
    """The offer contradicts what the participant was told when it joined the run."""
    STEERABLE_SETTING = "steerable_setting"
    """A setting of the method lets the coordinator decide whose training counts for how much in a sum."""
    SCHEDULE_DIFFERS = "schedule_differs"
    """A scheduled value of the task is another than the declaration gives for the round."""
    OUTSIDE_POLICY = "outside_policy"
    """The run or the task is outside the federation's signed policy."""
    NO_POLICY = "no_policy"
    """The participant takes part only under a signed federation policy, and has none."""

    OWN_ADVERT = "own_advert"
    """The roster does not hold the participant's own advert as it sent it."""
    ROSTER_SIZE = "roster_size"
    """Fewer participants in the roster than demanded, or more than offered."""
    ROSTER_SHRUNK = "roster_shrunk"
    """Too few are left of those with whom the participant uploaded for this model before: that may have been opened."""
    TOO_FEW_HONEST = "too_few_honest"
    """When the tolerated dropouts and the assumed corrupt ones are gone, too few others are left to hide among."""
    DUPLICATE_KEY = "duplicate_key"
    """Two adverts share a key, a nonce or a commitment."""
    BAD_KEY = "bad_key"
    """A public key that is no proper point: agreement with it would be predictable."""
    BAD_SIGNATURE = "bad_signature"
    """A signature that its participant's registered key did not make for this round."""
    NOT_REGISTERED = "not_registered"
    """A participant, or a client of the participant itself, that the pinned registry does not know."""
    NO_THRESHOLD = "no_threshold"
    """No threshold is both safe and able to finish with these participants and fractions."""

    WRONG_RECIPIENT = "wrong_recipient"
    """A delivery addressed to another participant."""
    SHARERS_UNKNOWN = "sharers_unknown"
    """The set that shared its keys names somebody who is not in the roster."""
    SHARERS_WITHOUT_SELF = "sharers_without_self"
    """The set that shared its keys lacks the participant itself."""
    TOO_FEW_SHARERS = "too_few_sharers"
    """Too few shared their keys, over all or among the participant's neighbours."""
    SHARES_MISSING = "shares_missing"
    """Shares from exactly the neighbours that shared are due: one is missing or one too many."""
    BAD_SHARE = "bad_share"
    """A share that cannot be decrypted for this round, sender and recipient, or is out of range."""

    SHARERS_DIFFER = "sharers_differ"
    """The survivor set is chained to another set of sharers than the participant was told."""
    SURVIVORS_UNKNOWN = "survivors_unknown"
    """The survivor set names somebody who did not share its keys."""
    SURVIVORS_WITHOUT_SELF = "survivors_without_self"
    """A participant that is alive was declared dropped."""
    TOO_FEW_SURVIVORS = "too_few_survivors"
    """Fewer survivors than the minimum, or than the tolerated dropouts leave."""
    SET_TOO_SIMILAR = "set_too_similar"
    """The survivor set differs by too few from one that the participant signed lately: the sums' difference shows those."""
    FOREIGN_SIGNATURE = "foreign_signature"
    """A signature of somebody outside the survivor set."""
    TOO_FEW_SIGNATURES = "too_few_signatures"
    """Too few signed the same survivor set to rule out that two were shown."""

    UNKNOWN_SENDER = "unknown_sender"
    """A message from somebody who has no part in this phase."""
    WRONG_NAME = "wrong_name"
    """A message that names another participant than the one that sent it."""
    CONFLICTING_MESSAGE = "conflicting_message"
    """A second, different message where one is due."""
    WRONG_RECIPIENTS = "wrong_recipients"
    """A share bundle that is not for exactly the sender's neighbours."""
    WRONG_REVEAL = "wrong_reveal"
    """A reveal that does not hold exactly the one share due for each neighbour."""
    EXPELLED = "expelled"
    """A message of a participant that broke the protocol earlier in this attempt."""
    TOO_FEW_ADVERTS = "too_few_adverts"
    """Too few participants advertised keys."""
    TOO_FEW_REVEALS = "too_few_reveals"
    """Too few participants revealed shares: the sum cannot be opened."""
    UNVERIFIABLE_SECRET = "unverifiable_secret"  # noqa: S105
    """No choice of shares rebuilds a secret that fits what was advertised."""

    NOT_CONSISTENT = "not_consistent"
    """The opened sum contradicts the number of its participants, or its counts are out of range."""
    PARTICIPANT_LOST = "participant_lost"
    """Participants went away and the rest cannot finish."""
    COORDINATOR_RESTARTED = "coordinator_restarted"
    """The coordinator lost the round's state in a restart."""
    ABANDONED = "abandoned"
    """The attempt was given up for a reason outside the protocol."""


class SecureAggregationStopped(Exception):
    """What the three have in common: a stable reason and a sentence for people."""

    def __init__(self, reason: AbortReason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class Refused(SecureAggregationStopped):
    """A participant does not go on with a round; its keys are gone."""


class Aborted(SecureAggregationStopped):
    """An attempt cannot be opened; its round id is used up."""


class Rejected(SecureAggregationStopped):
    """One message of one sender was not taken; the attempt goes on unchanged but for `expelled`."""

    def __init__(self, reason: AbortReason, detail: str = "", *, expelled: bool = False) -> None:
        super().__init__(reason, detail)
        self.expelled = expelled
        """Whether its sender has no part in the rest of the attempt: it counts as dropped out."""


class MalformedMessage(SecureAggregationStopped, ValueError):
    """Bytes that are not the one canonical spelling of a message."""

    def __init__(self, detail: str) -> None:
        super().__init__(AbortReason.MALFORMED_MESSAGE, detail)
