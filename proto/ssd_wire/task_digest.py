"""The digest of a round's task: one value for all that decides what a client's training gives, but for the client.

Both sides compute it from what a task says. Equal digests want equal work, so that finished updates are reused; and under
secure aggregation every mask depends on it, so that workers who were told different things have no sum together
(a coordinator that made all but one worker train with rate 0 would otherwise read that one's update off the sum:
Pasquini et al., CCS 2022, "Eluding secure aggregation in federated learning via model inconsistency").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ssd.digest import json_digest


def task_digest(
    *,
    run_id: str,
    round_number: int,
    rounds: int,
    base_digest: str,
    declaration_digest: str,
    run_seed: int,
    values: Mapping[str, float],
    threads: int,
    quality: bool,
    expected_clients: int,
    sample_digest: str,
    artefacts: Mapping[str, tuple[str, Sequence[int]]],
) -> str:
    """Hex SHA-256 of the canonical JSON of all of this.

    Args:
        run_id: of the run.
        round_number: 1-based.
        rounds: how many the run plans in all.
        base_digest: model digest of the version to train from.
        declaration_digest: of the method's resolved declaration.
        run_seed: seed of the run.
        values: the method's schedules, resolved for the round.
        threads: intra-op threads of training.
        quality: whether updates end with the sums of representation quality.
        expected_clients: how many clients share the dimensions of the scaling vectors.
        sample_digest: of the round's sample in the order of its positions, where scaling vectors belong to positions;
            empty where they belong to clients.
        artefacts: name -> (blob digest, shape) of every array that travels with the task.
    """
    return json_digest(
        {
            "format": "ssd-task-v2",
            "run": run_id,
            "round": round_number,
            "rounds": rounds,
            "base": base_digest,
            "declaration": declaration_digest,
            "seed": run_seed,
            "values": {name: float(value) for name, value in values.items()},
            "threads": threads,
            "quality": quality,
            "expected_clients": expected_clients,
            "sample": sample_digest,
            "artefacts": {name: [digest, list(shape)] for name, (digest, shape) in artefacts.items()},
        }
    )
