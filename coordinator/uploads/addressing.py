"""What an upload of the present attempt must say of itself."""

from __future__ import annotations

from coordinator.ports.records import RunRecord
from coordinator.ports.run import Run
from coordinator.sums.round_sum import RoundSum
from coordinator.uploads.client_weights import ClientWeights
from coordinator.uploads.envelope_checks import Addressing, check_envelope
from coordinator.versions.catalogue import Catalogue
from coordinator.versions.quality import QualityRounds
from coordinator.workers.sessions import Session
from coordinator.workers.tasks import Tasks
from ssd.updates.declaration import Declaration
from ssd_wire.uploads import Envelope


class EnvelopeChecks:
    """Checks envelopes against the present attempt of one run.

    Args:
        run: its present state.
        record: its identity.
        declaration: its method's.
        catalogue: for the base version.
        tasks: for the digest of the task that an update answers.
        quality: for the round's fold plan.
        round_sum: says what else must hold, and how long a body is.
        weights: what clients weigh.
    """

    def __init__(
        self,
        *,
        run: Run,
        record: RunRecord,
        declaration: Declaration,
        catalogue: Catalogue,
        tasks: Tasks,
        quality: QualityRounds,
        round_sum: RoundSum,
        weights: ClientWeights,
    ) -> None:
        self._run = run
        self._record = record
        self._declaration = declaration
        self._catalogue = catalogue
        self._tasks = tasks
        self._quality = quality
        self._sum = round_sum
        self._weights = weights

    def check(self, session: Session, envelope: Envelope) -> None:
        """Refuse an upload before a byte of its body is taken.

        Raises:
            ClientFault: the first thing that is wrong; nothing changed.
        """
        state = self._run.state
        # Of the state's version, not of the newest: for a moment a commit is durable that the state has not seen.
        base = self._catalogue.record(state.version)
        assert base is not None
        addressing = Addressing(
            run_id=self._record.run_id,
            spec_digest=self._declaration.spec.digest,
            base_digest=base.model_digest,
            task_digest=self._tasks.digest(
                state.round, base.model_digest, base.artefacts, state.policy.rounds
            ),
        )
        plan = self._quality.plan(state.round)
        check_envelope(state, addressing, plan, session, envelope, self._sum.upload_nbytes(plan))
        if not envelope.masked:
            self._weights.check(envelope.clients)
        self._sum.check(session, envelope)
