"""What this worker checks of a run and a task itself before anything is trained for a masked sum.

Each check is one call; `tests/mutation/` takes them out one by one, and every time a test fails.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ssd.method.schedule import ScheduleError, resolve
from ssd.secagg.admission.declaration_checks import check_declaration
from ssd.secagg.admission.policy_checks import check_policy
from ssd.secagg.protocol.checks import refuse_unless
from ssd.secagg.protocol.errors import AbortReason, Refused
from ssd.trust.policy.federation_policy import FederationPolicy
from ssd.trust.signing import SigningRefused
from ssd.updates.declaration import Declaration
from ssd_wire.messages import Train, Welcome
from worker.secure_aggregation.identity import SecureIdentity

SAME = 1e-9
"""How far a coordinator's value of a schedule may lie from this host's, relative to it: two libraries may round a cosine
differently, and the coordinator's is used so that all hosts train at the very same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Admission:
    """What this worker takes part in.

    Args:
        identity: where the federation's policy is.
        needs_policy: nothing is taken part in without one.
        max_weight_ratio: the most a client may weigh; every client weighs 1 at least.
    """

    identity: SecureIdentity
    needs_policy: bool = False
    max_weight_ratio: int = 1 << 20

    def check(self, declaration: Declaration, welcome: Welcome, train: Train) -> None:
        """Whether this worker trains a task whose updates go into a masked sum.

        Args:
            declaration: of the run, as received; the training process compares it with its own method's.
            welcome: in use.
            train: the task.

        Raises:
            Refused: it does not; nothing may be trained.
        """
        check_declaration(declaration)
        check_schedules(declaration, train.round, train.rounds, train.values)
        heaviest = welcome.max_client_weight if welcome.masking is None else welcome.masking.max_client_weight
        refuse_unless(
            heaviest <= self.max_weight_ratio,
            AbortReason.POLICY_WEIGHT,
            f"a client of this run may weigh {heaviest} times another, at most {self.max_weight_ratio} is agreed to",
        )
        policy = self._policy()
        refuse_unless(
            policy is not None or not self.needs_policy,
            AbortReason.NO_POLICY,
            "this worker takes part at level active only under a federation policy: have its signer make one with"
            " `ssd-coordinator policy`, and put it into the identity folder; or set [secure_aggregation]"
            " require_policy = false",
        )
        if policy is not None:
            check_policy(
                policy,
                declaration,
                rounds=train.rounds,
                number=train.round,
                max_client_weight=heaviest,
                privacy=welcome.privacy,
            )

    def _policy(self) -> FederationPolicy | None:
        try:
            return self.identity.load_policy()
        except SigningRefused as error:
            raise Refused(AbortReason.NO_POLICY, str(error)) from error


def check_schedules(declaration: Declaration, number: int, rounds: int, values: Mapping[str, float]) -> None:
    """Whether a task's scheduled values are those that the declaration gives for its round.

    Args:
        declaration: of the run.
        number: of the round, 1-based.
        rounds: how many the run plans in all.
        values: as the task carries them.

    Raises:
        Refused: another value, one too many or one too few, or a schedule that gives none.
    """
    try:
        own = resolve(declaration.schedules, number, rounds)
    except ScheduleError as error:
        raise Refused(AbortReason.SCHEDULE_DIFFERS, str(error)) from None
    refuse_unless(
        values.keys() == own.keys(),
        AbortReason.SCHEDULE_DIFFERS,
        f"the task has values for {sorted(values)}, the declaration schedules {sorted(own)}",
    )
    for name, value in own.items():
        refuse_unless(
            math.isclose(values[name], value, rel_tol=SAME, abs_tol=1e-15),
            AbortReason.SCHEDULE_DIFFERS,
            f"{name} is {values[name]!r} in the task, {value!r} in round {number} of {rounds} as declared",
        )
