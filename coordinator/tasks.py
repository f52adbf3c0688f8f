"""What a worker is asked to train: the task of a round, its digest, and every client's scaling vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coordinator.core.effects import SendTrain
from coordinator.messages import Train, VersionOffer
from coordinator.ports import RunRecord
from ssd.declaration import Declaration
from ssd.digest import json_digest
from ssd.scaling import ScalingVector, assign
from ssd.schedule import resolve

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
    ) -> None:
        self._run = run
        self._declaration = declaration
        self._seed = seed
        self._threads = threads
        self._expected_clients = expected_clients
        self._scaling = dict(scaling)

    def vectors(self, indexes: Sequence[tuple[str, int]]) -> Vectors:
        """The vectors that belong to newly assigned indexes; None for a method without any."""
        scaling = self._declaration.scaling
        if scaling is None:
            return {client: (index, None) for client, index in indexes}
        return {
            client: (
                index,
                assign(
                    index,
                    dimension=scaling.dimension,
                    expected_clients=self._expected_clients,
                    block=scaling.block,
                    allocation=scaling.allocation,
                    alpha=scaling.alpha,
                    seed=self._seed,
                ),
            )
            for client, index in indexes
        }

    def assigned(self, given: Vectors) -> None:
        """These vectors are durable now and may be sent."""
        self._scaling.update({client: vector for client, (_, vector) in given.items()})

    def train(self, effect: SendTrain, base: VersionOffer, rounds: int) -> Train:
        """The message for one worker. `rounds`: how many the run plans in all."""
        return Train(
            round=effect.round,
            attempt=effect.attempt,
            base=base,
            task_digest=self.digest(effect.round, base.model_digest, rounds),
            run_seed=self._seed,
            rounds=rounds,
            values=self._values(effect.round, rounds),
            threads=self._threads,
            clients=tuple((client, self._scaling.get(client)) for client in effect.clients),
            artefacts=self._run.artefacts,
            upload_within=effect.upload_within,
        )

    def digest(self, round_number: int, base_digest: str, rounds: int) -> str:
        """SHA-256 of all that decides what training gives, but for the client: equal tasks want equal work."""
        return json_digest(
            {
                "run": self._run.run_id,
                "round": round_number,
                "base": base_digest,
                "declaration": self._run.declaration_digest,
                "seed": self._seed,
                "values": self._values(round_number, rounds),
                "threads": self._threads,
            }
        )

    def _values(self, round_number: int, rounds: int) -> dict[str, float]:
        return resolve(self._declaration.schedules, round_number, rounds)
