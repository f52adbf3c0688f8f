"""The method host's `after_reduce`: files in, the method's own result out, and nothing a method may not return."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rounds.hook_requests import a_reduction, as_request, npy
from ssd.method.registry import load
from ssd.method_host.hook import CollectedFiles, read_reduction
from ssd.method_host.host import Host
from ssd.method_host.npy import read_npy
from ssd.updates.declaration import (
    Declaration,
    DeclarationError,
    RoundArtefactDeclaration,
    StatisticDeclaration,
)

CONFIG = {"parameters": 200, "hook": True, "collect": True}


def declared(**changes: Any) -> Declaration:
    return load("synthetic", {**CONFIG, **changes}).declare()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    return Host().answer(json.dumps(request))


def made(reply: dict[str, Any]) -> tuple[bytes, dict[str, bytes], dict[str, bytes], dict[str, float]]:
    assert "error" not in reply, reply
    return (
        Path(reply["delta"]["path"]).read_bytes(),
        {name: Path(each["path"]).read_bytes() for name, each in reply["state"].items()},
        {name: Path(each["path"]).read_bytes() for name, each in reply["artefacts"].items()},
        reply["metrics"],
    )


@pytest.mark.parametrize("collect", [True, False])
def test_a_hook_gets_all_of_a_reduction_and_its_result_comes_back(tmp_path: Path, collect: bool) -> None:
    declaration = declared(collect=collect)
    reduction = a_reduction(declaration)
    expected = load("synthetic", declaration.config).after_reduce(reduction)  # type: ignore[attr-defined]
    reply = answer(as_request(declaration, reduction, tmp_path))
    delta = read_npy(Path(reply["delta"]["path"]))
    assert np.array_equal(delta, expected.delta)
    assert set(reply["state"]) == {"calls", "chain"}
    for name, array in expected.state.items():
        found = read_npy(Path(reply["state"][name]["path"]))
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
    drift = reply["artefacts"]["drift"]
    assert drift["shape"] == [4, 8]
    assert np.fromfile(drift["path"], "<f4").tobytes() == expected.artefacts["drift"].tobytes()
    assert reply["metrics"] == {"hook_calls": 2.0}
    assert all(Path(each["path"]).parent == tmp_path / "out" for each in reply["state"].values())


def test_two_hosts_give_the_same_bytes(tmp_path: Path) -> None:
    declaration = declared()
    request = as_request(declaration, a_reduction(declaration), tmp_path)
    (tmp_path / "other").mkdir()
    host = Host()
    first = made(host.answer(json.dumps(request)))
    again = made(host.answer(json.dumps(request | {"out": str(tmp_path / "other")})))
    assert first == again == made(answer(request))


@pytest.mark.parametrize(
    "change",
    [
        {"run_seed": 6},
        {"round": 3},
        {"rounds": 5},
        {"weight": 11},
        {"values": {"lr": 0.25}},
        {"state": {}},
        {"artefacts": {}},
    ],
)
def test_everything_a_hook_is_given_reaches_it(tmp_path: Path, change: dict[str, Any]) -> None:
    declaration = declared()
    before = made(answer(as_request(declaration, a_reduction(declaration), tmp_path / "a")))
    after = made(answer(as_request(declaration, a_reduction(declaration, **change), tmp_path / "b")))
    assert before[0] != after[0]
    assert before[2] != after[2]


@pytest.mark.parametrize(
    "what", ["base", "delta", "collected values", "collected statistics", "collected weight"]
)
def test_every_array_a_hook_is_given_reaches_it(tmp_path: Path, what: str) -> None:
    declaration = declared()
    before = a_reduction(declaration)
    first = before.collected[0]
    after = {
        "base": replace(before, base=before.base * np.float32(2)),
        "delta": replace(before, delta=before.delta * np.float32(2)),
        "collected values": replace(
            before,
            collected=[
                replace(first, groups={"encoder": first.groups["encoder"] + 1}),
                *before.collected[1:],
            ],
        ),
        "collected statistics": replace(
            before, collected=[replace(first, statistics={"loss_sum": np.array(9.0)}), *before.collected[1:]]
        ),
        "collected weight": replace(before, collected=[replace(first, weight=9), *before.collected[1:]]),
    }[what]
    results = [
        made(answer(as_request(declaration, each, tmp_path / name)))
        for name, each in {"a": before, "b": after}.items()
    ]
    assert results[0][0] != results[1][0]


def test_collected_updates_are_opened_one_at_a_time(tmp_path: Path) -> None:
    declaration = declared()
    request = as_request(declaration, a_reduction(declaration, clients=4), tmp_path)
    updates = read_reduction(declaration, request).collected
    assert isinstance(updates, CollectedFiles)
    assert len(updates) == 4
    Path(request["collected"][3]["values"]["path"]).unlink()
    assert [update.client for _, update in zip(range(3), updates, strict=False)] == ["c0", "c1", "c2"]
    assert [update.client for update in updates[1:3]] == ["c1", "c2"]
    with pytest.raises(ValueError, match="cannot be read"):
        updates[3]
    assert not updates[0].groups["encoder"].flags.writeable


def test_groups_and_statistics_of_several_shapes_are_told_apart(tmp_path: Path) -> None:
    base = declared()
    groups = tuple(replace(group, collect=True) for group in base.groups)
    statistics = (
        StatisticDeclaration(name="a", shape=(2, 3), collect=True),
        StatisticDeclaration(name="b"),
        StatisticDeclaration(name="c", shape=(4,), collect=True),
    )
    declaration = replace(base, groups=groups, statistics=statistics)
    reduction = a_reduction(declaration)
    found = read_reduction(declaration, as_request(declaration, reduction, tmp_path))
    assert {name: array.tolist() for name, array in found.statistics.items()} == {
        name: array.tolist() for name, array in reduction.statistics.items()
    }
    for given, seen in zip(reduction.collected, found.collected, strict=True):
        assert (given.client, given.weight) == (seen.client, seen.weight)
        for before, after in ((given.groups, seen.groups), (given.statistics, seen.statistics)):
            assert {n: a.tolist() for n, a in before.items()} == {n: a.tolist() for n, a in after.items()}


BROKEN = {
    "its delta is float64": "ReductionResult(delta=np.zeros(n), artefacts=good)",
    "its delta is float32 [3]": "ReductionResult(delta=np.zeros(3, np.float32), artefacts=good)",
    "its delta is not finite": "ReductionResult(delta=np.full(n, np.nan, np.float32), artefacts=good)",
    "its delta is list": "ReductionResult(delta=[0.0] * n, artefacts=good)",
    "the artefacts [], declared are ['drift']": "ReductionResult()",
    "the artefacts ['drift', 'more']": "ReductionResult(artefacts={**good, 'more': good['drift']})",
    "artefact 'drift' is float32 [32]": "ReductionResult(artefacts={'drift': good['drift'].reshape(-1)})",
    "artefact 'drift' is not finite": "ReductionResult(artefacts={'drift': good['drift'] + np.float32(np.inf)})",
    "a state entry 's'": "ReductionResult(artefacts=good, state={'s': np.array([object()])})",
    "a metric 'm'": "ReductionResult(artefacts=good, metrics={'m': float('inf')})",
    "a metric 'huge'": "ReductionResult(artefacts=good, metrics={'huge': 10**400})",
    "a dict instead": "{}",
    "ZeroDivisionError: division by zero": "1 / 0",
}


@pytest.mark.parametrize("said", list(BROKEN))
def test_what_a_hook_may_not_return_is_an_error_that_names_the_method(tmp_path: Path, said: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import numpy as np\n"
        "from ssd.method.protocol import ReductionResult\n"
        "from ssd.method.registry import load\n"
        "def create(config):\n"
        "    method = load('synthetic', config)\n"
        "    n = method.declare().spec.size\n"
        "    good = {'drift': np.zeros((4, 8), np.float32)}\n"
        f"    method.after_reduce = lambda reduction: {BROKEN[said]}\n"
        "    return method\n"
    )
    declaration = declared()
    reply = answer(as_request(declaration, a_reduction(declaration), tmp_path, method=str(file)))
    assert reply["error"]["code"] == "hook_failed"
    assert "the server hook of method synthetic" in reply["error"]["message"]
    assert "round 2" in reply["error"]["message"]
    assert said in reply["error"]["message"]
    assert not list((tmp_path / "out").iterdir())


def test_a_hook_may_keep_the_delta_and_leave_no_state(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from ssd.method.protocol import ReductionResult\n"
        "from ssd.method.registry import load\n"
        "def create(config):\n"
        "    method = load('synthetic', config)\n"
        "    method.after_reduce = lambda reduction: ReductionResult(artefacts=reduction.artefacts)\n"
        "    return method\n"
    )
    declaration = declared()
    reply = answer(as_request(declaration, a_reduction(declaration), tmp_path, method=str(file)))
    assert (reply["delta"], reply["state"], reply["metrics"]) == (None, {}, {})
    assert set(reply["artefacts"]) == {"drift"}


def spoilt(request: dict[str, Any], folder: Path, how: str) -> dict[str, Any]:
    match how:
        case "a base of another length":
            Path(request["base"]["path"]).write_bytes(bytes(8))
        case "a delta of another length":
            request["delta"] = npy(folder / "wrong", np.zeros(3, np.float32))
        case "a delta of another dtype":
            request["delta"] = npy(folder / "wrong", np.zeros(200))
        case "statistics of another length":
            request["statistics"] = npy(folder / "wrong", np.zeros(1))
        case "a state that is gone":
            Path(request["state"]["chain"]["path"]).unlink()
        case "a state with objects":
            np.save(folder / "wrong.npy", np.array([{}], object), allow_pickle=True)
            request["state"]["chain"] = {"path": str(folder / "wrong.npy")}
        case "clients out of order":
            request["collected"].reverse()
        case "a client twice":
            request["collected"][1]["client"] = "c0"
        case "a client too few":
            request["collected"].pop()
        case "values of another length":
            request["collected"][1]["values"] = npy(folder / "wrong", np.zeros(3, np.float32))
        case "no values":
            del request["values"]
    return request


@pytest.mark.parametrize(
    "how",
    [
        "a base of another length",
        "a delta of another length",
        "a delta of another dtype",
        "statistics of another length",
        "a state that is gone",
        "a state with objects",
        "clients out of order",
        "a client twice",
        "a client too few",
        "values of another length",
        "no values",
    ],
)
def test_a_request_that_does_not_fit_the_declaration_is_refused(tmp_path: Path, how: str) -> None:
    declaration = declared()
    request = spoilt(as_request(declaration, a_reduction(declaration), tmp_path), tmp_path, how)
    assert answer(request)["error"]["code"] == "bad_input"


def test_a_result_that_cannot_be_written_is_a_fault_of_the_medium(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ssd.method_host.hook.write_atomically", full)
    declaration = declared()
    reply = answer(as_request(declaration, a_reduction(declaration), tmp_path))
    assert reply["error"]["code"] == "storage"
    assert "No space left" in reply["error"]["message"]


def test_a_hook_that_is_declared_must_be_there(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from ssd.method.registry import load\n"
        "class Method:\n"
        "    def declare(self):\n"
        "        return load('synthetic', {'hook': True}).declare()\n"
        "def create(config):\n"
        "    return Method()\n"
    )
    reply = answer({"op": "declare", "method": str(file), "config": {}})
    assert reply["error"]["code"] == "bad_config"
    assert "has no after_reduce" in reply["error"]["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"server_hook": False},
        {"server_hook": False, "round_artefacts": ()},
        {"artefacts": ("drift",)},
        {"round_artefacts": (RoundArtefactDeclaration(name="a", shape=()),) * 2},
    ],
)
def test_a_declaration_whose_hook_parts_contradict_each_other_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError):
        replace(declared(), **change)
