"""The rows that need no method, the room they leave, and the claims that are refused without any."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ssd.data.partition.partition import dirichlet, load
from ssd.experiment import run as runner
from ssd.experiment.cell import CellTask, Saying, run_cell
from ssd.experiment.command import experiment
from ssd.experiment.grid import Cell, cells
from ssd.experiment.layout import RESULT, folder_of, partition_of, write_json
from ssd.experiment.references import REFERENCES, partition_for, write_untrained
from ssd.experiment.report.claims import verdicts
from ssd.experiment.report.pages import markdown
from ssd.experiment.report.results import Results, read
from ssd.experiment.report.room import judgement, room_for, room_of, without_room
from ssd.experiment.report.sections import document
from ssd.experiment.settings import parse
from ssd.federation import provenance
from ssd.federation.children import Children
from ssd.method.registry import load as load_method
from ssd.settings import SettingsError, to_json
from ssd.updates.spec import model_digest

CLAIM = {
    "name": "better",
    "text": "SSD beats its base",
    "measure": "linear_probe_all",
    "method": "ssd",
    "against": "base",
}
FILE: dict[str, Any] = {
    "experiment": {"name": "tiny", "seeds": [1, 2, 3]},
    "data": {"kind": "digits"},
    "config": {"image": {"size": 8, "channels": 1}, "model": {"name": "small", "feature_dim": 8, "width": 4}},
    "settings": [
        {"name": "silo", "clients": 4, "rounds": 20, "cohort_size": 2, "partition": {"alpha": 0.1, "images": 100}}
    ],
    "methods": [{"name": "fed_align_uniform", "label": "base", "title": "Base"}, {"name": "ssd"}],
    "evaluation": {"measures": [{"measures": ["linear_probe"], "features": ["h", "z"]}]},
    "claims": [CLAIM],
}  # fmt: skip
# The trial that showed the need: 10 clients, Dirichlet 0.1, 2 local epochs; raw pixels as good as any encoder.
WITHOUT_ROOM = {
    "base": (0.388, 0.387, 0.389), "ssd": (0.389, 0.388, 0.390), "even": (0.379, 0.375, 0.391),
    "one-place": (0.365, 0.365, 0.365), "raw-pixels": (0.404, 0.404, 0.404), "untrained": (0.31, 0.31, 0.31),
    "chance": (0.1, 0.1, 0.1),
}  # fmt: skip
WITH_ROOM = {**WITHOUT_ROOM, "even": (0.45, 0.46, 0.47)}


def changed(**tables: Any) -> dict[str, Any]:
    return {**copy.deepcopy(FILE), **tables}


def grid(value: dict[str, Any] | None = None) -> dict[str, Cell]:
    return {cell.name: cell for cell in cells(parse(value or FILE, Path()))}


def results_in(folder: Path, values: dict[str, Sequence[float]], **tables: Any) -> Results:
    """An experiment's folder with a result for every value."""
    folder.mkdir(exist_ok=True)
    given = parse(changed(**tables), folder)
    write_json(folder / "experiment.json", to_json(given))
    for cell in cells(given):
        if cell.method in values and len(values[cell.method]) >= cell.seed:
            finish(folder, cell, values[cell.method][cell.seed - 1])
    return read(folder)


def finish(folder: Path, cell: Cell, accuracy: float) -> None:
    result = {
        "config": cell.config, "model_version": 2, "model_digest": "ab", "partition_digest": "cd", "rounds": [],
        "evaluations": {},
        "measures": {
            name: {"how": how, "values": {"linear_probe_all": accuracy}} for name, how in cell.measures.items()
        },
        "cost": {"bytes_up": 1, "bytes_down": 1, "round_seconds": 1.0, "processor_seconds": 1.0, "resumed": False},
        "versions": {"python": "3"}, "machine": {"cores": 2}, "code": "v1",
    }  # fmt: skip
    folder_of(folder, cell).mkdir(parents=True, exist_ok=True)
    write_json(folder_of(folder, cell) / RESULT, result)


# The rows.


def test_every_setting_has_the_rows_that_need_no_method() -> None:
    names = [name for name in grid() if name.endswith("seed-1")]
    assert names == [f"silo/{label}/seed-1" for label in ("base", "ssd", *REFERENCES)]
    fewer = changed(experiment={"name": "x", "seeds": [1], "references": ["even"]})
    assert list(grid(fewer)) == ["silo/base/seed-1", "silo/ssd/seed-1", "silo/even/seed-1"]


def test_a_reference_row_has_the_bases_configuration_partition_and_measures() -> None:
    made = grid()
    base = made["silo/base/seed-2"]
    for label in REFERENCES:
        cell = made[f"silo/{label}/seed-2"]
        assert cell.partition == base.partition
        assert (cell.measures, cell.exports) == (base.measures, base.exports)
        assert cell.config["config"] == base.config["config"]
        assert cell.config["reference"] == label
    assert "reference" not in base.config, "older folders hold cells without it"


def test_in_one_place_as_many_steps_are_made_as_by_all_clients_together() -> None:
    config = grid()["silo/one-place/seed-1"].config
    assert (config["clients"], config["cohort_size"], config["rounds"]) == (1, 1, 10)
    steps = changed(
        methods=[{"name": "fedgen", "label": "base", "config": {"local_steps": 20}}], claims=[],
        evaluation={"measures": [], "every": 1},
    )  # fmt: skip
    made = grid(steps)
    assert {cell.method for cell in made.values()} == {"base", "even", "one-place"}, (
        "nothing to measure without training"
    )
    config = made["silo/one-place/seed-1"].config
    assert (config["rounds"], config["config"]["local_steps"]) == (20, 40)


def test_there_are_no_rows_without_images_or_where_the_base_is_not() -> None:
    nothing = changed(
        data={"kind": "none"}, methods=[{"name": "synthetic", "label": "base", "measured": False}], claims=[],
        evaluation={"measures": []},
    )  # fmt: skip
    assert {cell.method for cell in grid(nothing).values()} == {"base"}
    elsewhere = [*FILE["settings"], {"name": "device", "clients": 2, "rounds": 1}]
    methods = [{"name": "fed_align_uniform", "label": "base", "settings": ["silo"]}, {"name": "ssd"}]
    made = grid(changed(settings=elsewhere, methods=methods))
    assert {cell.method for cell in made.values() if cell.setting == "device"} == {"ssd"}


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"experiment": {"name": "x", "seeds": [1], "references": ["evn"]}}, "did you mean even"),
        (
            {"methods": [{"name": "ssd", "label": "even"}], "claims": []},
            "'even' is the label of a reference row",
        ),
        ({"claims": [{**CLAIM, "against": "raw-pixel"}]}, "did you mean raw-pixels"),
    ],
)
def test_a_mistake_about_rows_is_named(tables: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        grid(changed(**tables))


def test_even_clients_and_one_place_have_exactly_the_uneven_clients_images() -> None:
    labels = [index % 5 for index in range(200)]
    uneven = dirichlet(labels, 4, 0.05, 3, dataset="x")
    even, one = (partition_for(label, uneven, 3) for label in ("even", "one-place"))
    assert [len(each) for each in even.clients.values()] == [50] * 4
    assert [len(each) for each in one.clients.values()] == [200]
    owned = sorted(index for each in uneven.clients.values() for index in each)
    for again in (even, one):
        assert sorted(index for each in again.clients.values() for index in each) == owned
    counts = [
        [sum(labels[index] == label for index in each) for label in range(5)]
        for each in even.clients.values()
    ]
    assert max(max(each) - min(each) for each in counts) < 15
    assert partition_for("even", uneven, 3) == even != partition_for("even", uneven, 4)


def test_the_untrained_row_is_the_version_that_the_run_starts_from(tmp_path: Path) -> None:
    cell = grid()["silo/untrained/seed-2"]
    found = write_untrained(cell.config, "fed_align_uniform", cell.exports, tmp_path)
    method = load_method("fed_align_uniform", cell.config["config"])
    assert found["model_digest"] == model_digest(method.declare().spec, method.initial(2, None))
    assert {path.name for path in tmp_path.iterdir()} == {"encoder.safetensors", "projector.safetensors"}


@pytest.mark.parametrize("label", ["chance", "raw-pixels", "untrained"])
def test_a_row_without_training_is_measured_as_the_methods_are(label: str, tmp_path: Path) -> None:
    cell = grid()[f"silo/{label}/seed-1"]
    folder = folder_of(tmp_path, cell)
    folder.mkdir(parents=True)
    task = CellTask(
        name=cell.name, folder=str(folder), partition=str(partition_of(tmp_path, cell)), config=cell.config,
        measures=cell.measures, exports=cell.exports, device="cpu",
    )  # fmt: skip
    with Children() as children:
        run_cell(task, children, Saying(cell.name))
    result = json.loads((folder / RESULT).read_text())
    values = result["measures"][""]["values"]
    low, high = {"chance": (0.1, 0.11), "raw-pixels": (0.95, 0.99), "untrained": (0.3, 0.95)}[label]
    assert low < values["linear_probe_all"] < high
    assert ("z_linear_probe_all" in values) == (label == "untrained")
    assert len(load(partition_of(tmp_path, cell)).clients) == 4


# The room.


def test_there_is_no_room_where_even_dealing_gains_nothing_and_pixels_are_as_good(tmp_path: Path) -> None:
    results = results_in(tmp_path, WITHOUT_ROOM)
    room = room_of(results, "silo", "linear_probe_all")
    assert room is not None
    assert (room.ceiling, room.floor) == ("even", "raw-pixels")
    assert room.gain.mean == pytest.approx(-0.0063, abs=1e-4)
    assert room.margin is not None
    assert room.margin.mean == pytest.approx(-0.0223, abs=1e-4)
    assert "There is no room" in judgement(room)
    assert [claim.name for claim, _ in without_room(results)] == ["better"]
    (verdict,) = verdicts(results)
    assert verdict.certain
    text = markdown(document(results, {}), tmp_path)
    assert "**none**: -0.63" in text
    for words in (
        "Chance",
        "Raw pixels",
        "Untrained encoder",
        "Base, images dealt evenly",
        "all images in one place",
    ):
        assert words in text, "every table has the rows"
    assert (
        "| 38.80 ± 0.10 | 38.90 ± 0.10 | 10.00 ± 0.00 | 40.40 ± 0.00 | 31.00 ± 0.00 | 38.17 ± 0.83 | 36.50 ± 0.00 |"
        in text
    )


def test_a_gain_has_room_up_to_what_even_dealing_gains(tmp_path: Path) -> None:
    results = results_in(tmp_path, WITH_ROOM)
    room = room_of(results, "silo", "linear_probe_all")
    assert room is not None
    assert room.gain.mean == pytest.approx(0.072)
    assert judgement(room) == "There is room."
    assert without_room(results) == []
    higher = results_in(tmp_path, WITH_ROOM, claims=[{**CLAIM, "threshold": 0.08}])
    assert [claim.threshold for claim, _ in without_room(higher)] == [0.08]


def test_room_within_noise_is_said_to_be_and_not_refused(tmp_path: Path) -> None:
    results = results_in(tmp_path, {**WITHOUT_ROOM, "even": (0.38, 0.39, 0.47)})
    room = room_of(results, "silo", "linear_probe_all")
    assert room is not None
    assert "cannot be told from noise" in judgement(room)
    assert without_room(results) == []


@pytest.mark.parametrize(
    "claim", [{**CLAIM, "direction": "below"}, {**CLAIM, "threshold": -0.01}, {**CLAIM, "method": "even"}]
)
def test_a_claim_of_a_cost_or_of_no_loss_or_about_a_row_needs_no_room(
    claim: dict[str, Any], tmp_path: Path
) -> None:
    results = results_in(tmp_path, WITHOUT_ROOM, claims=[claim])
    assert room_for(results, results.experiment.claims[0], "silo") is None
    assert without_room(results) == []


def test_nobody_is_refused_while_a_row_is_missing(tmp_path: Path) -> None:
    assert room_of(results_in(tmp_path, {"base": WITHOUT_ROOM["base"]}), "silo", "linear_probe_all") is None
    some = {**WITHOUT_ROOM, "base": WITHOUT_ROOM["base"][:2]}
    assert without_room(results_in(tmp_path / "some", some)) == []


def test_reference_rows_have_no_part_in_the_error_that_methods_share(tmp_path: Path) -> None:
    (with_rows,) = verdicts(results_in(tmp_path / "with", WITH_ROOM))
    alone = {"name": "tiny", "seeds": [1, 2, 3], "references": []}
    (without,) = verdicts(results_in(tmp_path / "without", WITH_ROOM, experiment=alone))
    assert with_rows.pooled == without.pooled
    against = results_in(tmp_path / "pixels", WITH_ROOM, claims=[{**CLAIM, "against": "raw-pixels"}])
    (verdict,) = verdicts(against)
    assert verdict.difference is not None
    assert verdict.difference.mean == pytest.approx(-0.015)


# The command.


@pytest.mark.parametrize(
    ("values", "arguments", "code", "methods"),
    [
        (WITHOUT_ROOM, [], 3, {"base", *REFERENCES}),
        (WITHOUT_ROOM, ["--without-room"], 0, {"base", "ssd", *REFERENCES}),
        (WITH_ROOM, [], 0, {"base", "ssd", *REFERENCES}),
    ],
)
def test_the_grid_starts_after_the_room_is_known_and_only_if_there_is_some(
    values: dict[str, Sequence[float]], arguments: list[str], code: int, methods: set[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    ran: list[str] = []

    def run(wanted: Any, made: Sequence[Cell], out: Path, *_: object, **__: object) -> list[runner.Failure]:
        write_json(out / "experiment.json", to_json(wanted))
        for cell in made:
            ran.append(cell.method)
            finish(out, cell, values[cell.method][cell.seed - 1])
        return []

    monkeypatch.setattr(runner, "run_experiment", run)
    monkeypatch.setattr(provenance, "code_version", lambda: "v1")
    file = tmp_path / "file.toml"
    file.write_text(TOML)
    out = tmp_path / "out"
    out.mkdir()
    done = CliRunner().invoke(experiment, [str(file), "--out", str(out), *arguments], standalone_mode=False)
    assert done.return_value == code, done.output
    assert "linear probe, all labels %: Base 38.80; Base, images dealt evenly: " in done.stdout
    assert set(ran) == methods
    assert "ssd" not in ran[:18], "the base and the rows come first"
    if code:
        assert "no room for 1 claim(s)" in done.stderr
        assert "--without-room" in done.stderr


TOML = """
[experiment]
name = "tiny"
seeds = [1, 2, 3]
[data]
kind = "digits"
[config]
image = { size = 8, channels = 1 }
model = { name = "small", feature_dim = 8, width = 4 }
[[settings]]
name = "silo"
clients = 4
rounds = 2
[[methods]]
name = "fed_align_uniform"
label = "base"
title = "Base"
[[methods]]
name = "ssd"
[evaluation]
measures = [{ measures = ["linear_probe"] }]
[[claims]]
name = "better"
text = "SSD beats its base"
measure = "linear_probe_all"
method = "ssd"
against = "base"
"""
