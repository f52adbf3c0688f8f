"""What a worker looks at before it trains for a masked sum: settings that single clients out, and scheduled values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secure.secure_session import welcome
from ssd.methods.synthetic.method import create
from ssd.secagg.protocol.errors import AbortReason, Refused
from ssd.updates.declaration import Declaration
from ssd_wire.messages import BlobRef, ModelVersion, Train
from worker.secure_aggregation.identity import SecureIdentity
from worker.secure_aggregation.task_checks import Admission

NOWHERE = Path("/nonexistent")
COSINE = {"kind": "cosine", "start": 0.1}
STEP = {"kind": "step", "start": 0.4, "factor": 0.5, "every": 2}


def declared(**config: Any) -> Declaration:
    return create({"parameters": 64, **config}).declare()


def task(values: dict[str, float], *, round_number: int = 1, rounds: int = 10) -> Train:
    blob = BlobRef(digest="00" * 32, size=1)
    base = ModelVersion(number=round_number - 1, model_digest="11" * 32, full=blob, deltas=())
    return Train(
        round=round_number,
        attempt=1,
        base=base,
        task_digest="",
        run_seed=1,
        rounds=rounds,
        values=values,
        threads=1,
        clients=(),
    )


def check_task(
    declaration: Declaration, train: Train, folder: Path = NOWHERE, *, needs: bool = False
) -> None:
    identity = SecureIdentity(name="w1", folder=folder)
    Admission(identity=identity, needs_policy=needs).check(declaration, welcome().welcome, train)


def refusal(declaration: Declaration, train: Train) -> Refused:
    with pytest.raises(Refused) as caught:
        check_task(declaration, train)
    return caught.value


def test_what_is_declared_for_the_round_is_trained() -> None:
    declaration = declared(schedules={"lr": STEP, "scale": 2})
    check_task(declaration, task({"lr": 0.4, "scale": 2.0}))
    check_task(declaration, task({"lr": 0.2, "scale": 2.0}, round_number=3))
    check_task(declaration, task({"lr": 0.025, "scale": 2.0}, round_number=12))
    check_task(declared(), task({}))


def test_another_machines_last_bit_of_a_cosine_is_no_lie() -> None:
    declaration = declared(schedules={"lr": COSINE})
    value = 0.0975528258147577
    check_task(declaration, task({"lr": value}, round_number=2))
    check_task(declaration, task({"lr": value * (1 + 1e-15)}, round_number=2))


WRONG: dict[str, dict[str, float]] = {
    "a rate of zero": {"lr": 0.0, "scale": 2.0},
    "the rate of another round": {"lr": 0.2, "scale": 2.0},
    "a rate that is a little smaller": {"lr": 0.4 * (1 - 1e-6), "scale": 2.0},
    "no number": {"lr": float("nan"), "scale": 2.0},
    "another second value": {"lr": 0.4, "scale": 0.0},
    "one too few": {"lr": 0.4},
    "one too many": {"lr": 0.4, "scale": 2.0, "mu": 0.1},
}


@pytest.mark.parametrize("values", WRONG.values(), ids=WRONG)
def test_a_value_that_the_declaration_does_not_give(values: dict[str, float]) -> None:
    declaration = declared(schedules={"lr": STEP, "scale": 2})
    assert refusal(declaration, task(values)).reason is AbortReason.SCHEDULE_DIFFERS


def test_a_round_or_a_schedule_that_gives_no_value() -> None:
    broken = replace(declared(), schedules={"lr": {"kind": "no such"}})
    assert refusal(broken, task({"lr": 0.1})).reason is AbortReason.SCHEDULE_DIFFERS
    assert refusal(declared(), task({}, rounds=0)).reason is AbortReason.SCHEDULE_DIFFERS


POSITION = {"dimension": 8, "alpha": 2.0, "assignment": "position"}
STEERED: dict[str, Declaration] = {
    "a rate of the last visit": replace(declared(), steerable=("lr_lag",)),
    "something of a method of one's own": replace(declared(), steerable=("my_setting",)),
    "dimensions by position": declared(scaling=POSITION),
    "single clients' values": declared(hook=True, collect=True),
}


@pytest.mark.parametrize("declaration", STEERED.values(), ids=STEERED)
def test_a_setting_that_lets_a_coordinator_single_a_client_out(declaration: Declaration) -> None:
    assert refusal(declaration, task({})).reason is AbortReason.STEERABLE_SETTING


def test_dimensions_that_belong_to_clients_are_taken() -> None:
    check_task(declared(scaling={**POSITION, "assignment": "client"}), task({}))
