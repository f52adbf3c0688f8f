"""Measuring clients: sums over those that could be measured, each in its own state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from ssd.evaluation.client_measures import check
from ssd.method.protocol import ClientEvaluationTask
from ssd.methods.synthetic.method import SyntheticConfig, SyntheticMethod
from ssd.scaling import ScalingVector
from worker.errors import TaskFault
from worker.training.client_data import ClientData
from worker.training.evaluate import evaluate_clients
from worker.training.train import MethodCache

METHOD = """
from ssd.methods.synthetic.method import SyntheticConfig, SyntheticMethod

class Fussy(SyntheticMethod):
    def evaluate_client(self, task, train, test):
        if task.client_id == "raises":
            raise RuntimeError("no")
        if task.client_id == "nothing":
            return {}
        if task.client_id == "lies":
            return {"correct": 2, "images": 1}
        if task.client_id == "burns":
            raise RuntimeError("CUDA error: device-side assert")
        assert task.threads == 2
        scaled = 0 if task.scaling is None else task.scaling.indices[0]
        return {"correct": 1, "images": 4, "scaled": scaled, "state": int(task.state["counter"][0]) if task.state else 0,
                "artefact": float(task.artefacts["basis"].sum())}

def create(config):
    return Fussy(SyntheticConfig(**config))
"""


def measure(
    tmp_path: Path, clients: list[dict[str, Any]], *, stop_after: int | None = None
) -> tuple[dict[str, float], list[str]]:
    (tmp_path / "fussy.py").write_text(METHOD)
    config = {"parameters": 64, "artefacts": {"basis": [2]}, "client_evaluation": True}
    method = SyntheticMethod(SyntheticConfig(**config))
    (tmp_path / "declaration").write_text(json.dumps(method.declare().to_json()))
    (tmp_path / "base").write_bytes(method.initial(1, None).tobytes())
    (tmp_path / "basis").write_bytes(np.array([1.0, 2.0], "<f4").tobytes())
    prepared = {
        "declaration": str(tmp_path / "declaration"),
        "declaration_digest": method.declare().digest,
        "base": str(tmp_path / "base"),
        "artefacts": {"basis": (str(tmp_path / "basis"), [2])},
    }
    calls = 0

    def check_stop() -> None:
        nonlocal calls
        calls += 1
        if stop_after is not None and calls > stop_after:
            raise KeyboardInterrupt

    order = {"prepared": prepared, "version": 3, "run_seed": 1, "threads": 2, "clients": clients}
    methods = MethodCache({"synthetic": str(tmp_path / "fussy.py")})
    return evaluate_clients(order, methods, ClientData(None, 4), "cpu", check_stop)


def client(name: str, state: str | None = None, scaling: ScalingVector | None = None) -> dict[str, Any]:
    return {"client": name, "state": state, "scaling": None if scaling is None else scaling.to_json()}


def test_the_answer_is_the_sum_over_clients_each_with_its_state_and_scaling_vector(tmp_path: Path) -> None:
    path = tmp_path / "state"
    safetensors.numpy.save_file({"counter": np.array([7], np.int64), "chain": np.zeros(32, np.uint8)}, path)
    scaling = ScalingVector(dimension=8, indices=(5,), alpha=2.0)
    sums, measured = measure(tmp_path, [client("a", str(path)), client("b", scaling=scaling)])
    assert measured == ["a", "b"]
    check(sums, 2)
    assert sums == {
        "clients": 2, "correct": 2, "images": 8, "clients_with_accuracy": 2, "accuracy_sum": 0.5, "accuracy_squares": 0.125,
        "scaled": 5, "state": 7, "artefact": 6,
    }  # fmt: skip


def test_a_client_that_cannot_be_measured_costs_only_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = client("gone", str(tmp_path / "absent"))
    sums, measured = measure(tmp_path, [client("raises"), client("lies"), gone, client("a")])
    assert measured == ["a"]
    assert sums["clients"] == 1
    reasons = [record.ssd_fields["reason"] for record in caplog.records if hasattr(record, "ssd_fields")]
    assert reasons == ["training_failed", "bad_measures", "state_unreadable"]
    assert measure(tmp_path, [client("raises")]) == ({}, [])


def test_a_client_the_method_has_nothing_to_measure_of_is_left_out_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sums, measured = measure(tmp_path, [client("nothing"), client("a")])
    assert measured == ["a"]
    check(sums, 1)
    assert not caplog.records


def test_a_broken_device_ends_the_job(tmp_path: Path) -> None:
    with pytest.raises(TaskFault) as fault:
        measure(tmp_path, [client("burns"), client("a")])
    assert fault.value.reason == "device_fault"


def test_a_stop_is_seen_between_clients(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, [client("a"), client("b")], stop_after=1)


def test_the_synthetic_method_measures_what_it_was_given() -> None:
    method = SyntheticMethod(SyntheticConfig(parameters=64, client_evaluation=True))
    vector = method.initial(1, None)

    def values(state: Mapping[str, Any] | None = None, **changes: Any) -> Mapping[str, float]:
        fields = {"run_seed": 1, "version": 2, "client_id": "a", "vector": vector, "state": state or {}}
        return method.evaluate_client(ClientEvaluationTask(**{**fields, **changes}), None, None)

    assert values() == values()
    later = {"counter": np.array([3]), "chain": np.ones(32, np.uint8)}
    others = [values(later), values(version=3), values(client_id="b"), values(vector=vector + 1)]
    assert all(other != values() for other in others)
    assert values(later)["trainings"] == 3
    assert 0 <= values()["correct"] <= values()["images"]
