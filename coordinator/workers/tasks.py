"""What a worker is asked to train: the task of a round, its digest, and every client's scaling vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coordinator.core.effects import SendTrain
from coordinator.ports.records import RunRecord
from coordinator.versions.quality import QualityRounds, without_frequencies
from ssd.digest import json_digest
from ssd.method.schedule import resolve
from ssd.random_stream import RandomStream
from ssd.scaling import ScalingVector, assign
from ssd.updates.declaration import Declaration
from ssd_wire.messages import Artefact, Evaluate, ModelVersion, TaskClient, Train
from ssd_wire.task_digest import task_digest

Vectors = Mapping[str, tuple[int, ScalingVector | None]]
"""Client -> its index and its scaling vector."""


class Tasks:
    """The tasks of one run. A client's vector is a function of its index alone and never changes once assigned."""

    def __init__(
        self,
        *,
        run: RunRecord,
        declaration: Declaration,
        seed: int,
        threads: int,
        expected_clients: int,
        scaling: Mapping[str, ScalingVector | None],
        quality: QualityRounds,
    ) -> None:
        self._run = run
        self._declaration = declaration
        self._seed = seed
        self._threads = threads
        self._expected_clients = expected_clients
        self._scaling = dict(scaling)
        self._quality = quality
        self._by_position = declaration.scaling is not None and declaration.scaling.assignment == "position"
        self._sample: tuple[str, ...] = ()
        """The present cohort in the order of its positions; only if vectors belong to positions."""

    def vectors(self, indexes: Sequence[tuple[str, int]]) -> Vectors:
        """The vectors that belong to newly assigned indexes; None if clients have none of their own."""
        if self._declaration.scaling is None or self._by_position:
            return {client: (index, None) for client, index in indexes}
        return {client: (index, self._vector(index)) for client, index in indexes}

    def _vector(self, index: int) -> ScalingVector:
        scaling = self._declaration.scaling
        assert scaling is not None
        return assign(
            index,
            dimension=scaling.dimension,
            expected_clients=self._expected_clients,
            block=scaling.block,
            allocation=scaling.allocation,
            alpha=scaling.alpha,
            seed=self._seed,
        )

    def assigned(self, given: Vectors) -> None:
        """These vectors are durable now and may be sent."""
        self._scaling.update({client: vector for client, (_, vector) in given.items()})

    def opened(self, round_number: int, cohort: Sequence[str]) -> None:
        """An attempt is durable: `cohort` is its sample, whoever is revoked after.

        Where vectors belong to positions, the sample is put in an order of its own in every round, so that a client
        meets the vector of now one position, now another, as with the published code.
        """
        if not self._by_position:
            return
        ordered = sorted(cohort)
        order = RandomStream("scaling-positions", self._seed, round_number).permutation(len(ordered))
        self._sample = tuple(ordered[place] for place in order)
        self._scaling = {client: self._vector(position) for position, client in enumerate(self._sample)}

    def train(self, effect: SendTrain, base: ModelVersion, made: tuple[Artefact, ...], rounds: int) -> Train:
        """The message for one worker.

        Args:
            effect: whom to ask for what.
            base: how to get the base version.
            made: the base version's round artefacts.
            rounds: how many the run plans in all.
        """
        return Train(
            round=effect.round,
            attempt=effect.attempt,
            base=base,
            task_digest=self.digest(effect.round, base.model_digest, made, rounds),
            run_seed=self._seed,
            rounds=rounds,
            values=self.values(effect.round, rounds),
            threads=self._threads,
            expected_clients=self._expected_clients,
            sample_digest=self._sample_digest(),
            clients=tuple(
                TaskClient(client=client, scaling=self._scaling.get(client)) for client in effect.clients
            ),
            artefacts=self._artefacts(effect.round, made),
            upload_within_seconds=effect.upload_within_seconds,
            quality=self._quality.measures(effect.round),
        )

    def evaluate(self, version: ModelVersion, made: tuple[Artefact, ...], clients: Sequence[str]) -> Evaluate:
        """The message that asks a worker to measure a version, with its round artefacts, on its clients' own test images.

        A vector that belongs to a position in a round's sample belongs to no client here.
        """
        scaling: Mapping[str, ScalingVector | None] = {} if self._by_position else self._scaling
        return Evaluate(
            version=version,
            run_seed=self._seed,
            clients=tuple(TaskClient(client=client, scaling=scaling.get(client)) for client in clients),
            artefacts=(*without_frequencies(self._run.artefacts), *made),
            threads=self._threads,
        )

    def digest(self, round_number: int, base_digest: str, made: tuple[Artefact, ...], rounds: int) -> str:
        """What workers compute from the task themselves; see `ssd_wire.task_digest`."""
        return task_digest(
            run_id=self._run.run_id,
            round_number=round_number,
            rounds=rounds,
            base_digest=base_digest,
            declaration_digest=self._run.declaration_digest,
            run_seed=self._seed,
            values=self.values(round_number, rounds),
            threads=self._threads,
            quality=self._quality.measures(round_number),
            expected_clients=self._expected_clients,
            sample_digest=self._sample_digest(),
            artefacts={
                each.name: (each.blob.digest, each.shape) for each in self._artefacts(round_number, made)
            },
        )

    def _sample_digest(self) -> str:
        return json_digest(list(self._sample)) if self._by_position else ""

    def _artefacts(self, round_number: int, made: tuple[Artefact, ...]) -> tuple[Artefact, ...]:
        fixed = self._run.artefacts
        return (*(fixed if self._quality.measures(round_number) else without_frequencies(fixed)), *made)

    def values(self, round_number: int, rounds: int) -> dict[str, float]:
        """The method's schedules, resolved for a round."""
        return resolve(self._declaration.schedules, round_number, rounds)
