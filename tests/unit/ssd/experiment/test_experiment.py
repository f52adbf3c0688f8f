"""The parts of `ssd experiment` that need no federation: the file, the grid, what is refused, what is resumed."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from ssd.experiment import cell as cell_process
from ssd.experiment import run as runner
from ssd.experiment.command import experiment
from ssd.experiment.grid import Cell, cells, check_methods, differing, needs_root
from ssd.experiment.layout import (
    CONFIG,
    RESULT,
    CellRefused,
    finished,
    folder_of,
    missing_measures,
    refuse_changes,
    write_json,
)
from ssd.experiment.live import Display
from ssd.experiment.measuring import measure_arguments
from ssd.experiment.options import arguments, command
from ssd.experiment.run import claimed, run_experiment
from ssd.experiment.settings import load, parse
from ssd.federation import provenance
from ssd.federation.records import DaemonFailed
from ssd.settings import SettingsError

EXAMPLES = Path(__file__).parents[4] / "deploy" / "experiments"
FILE: dict[str, Any] = {
    "experiment": {"name": "tiny", "seeds": [3, 5], "references": []},
    "data": {"kind": "digits"},
    "config": {"lr": 0.1, "model": {"name": "small", "width": 8}},
    "settings": [
        {"name": "silo", "clients": 4, "rounds": 2, "partition": {"alpha": 0.1}},
        {
            "name": "device",
            "clients": 8,
            "cohort_size": 2,
            "rounds": 3,
            "config": {"lr": 0.2, "batch_size": 8},
        },
    ],
    "methods": [
        {"name": "fed_align_uniform", "label": "base"},
        {"name": "ssd", "config": {"lr": 0.3, "model": {"width": 16}}},
    ],
    "evaluation": {"every": 1, "measures": [{"labels_per_class": [2, 5], "draws": 3}]},
}


def changed(**tables: Any) -> dict[str, Any]:
    return {**copy.deepcopy(FILE), **tables}


def grid(value: dict[str, Any] | None = None, only: str = "") -> list[Cell]:
    return cells(parse(value or FILE, Path()), only)


# The grid.


def test_a_grid_has_every_method_in_every_setting_with_every_seed() -> None:
    assert [cell.name for cell in grid()] == [
        "silo/base/seed-3", "silo/ssd/seed-3", "silo/base/seed-5", "silo/ssd/seed-5",
        "device/base/seed-3", "device/ssd/seed-3", "device/base/seed-5", "device/ssd/seed-5",
    ]  # fmt: skip
    assert [cell.name for cell in grid(only="device/ssd")] == ["device/ssd/seed-3", "device/ssd/seed-5"]


def test_a_methods_config_lies_over_the_settings_which_lies_over_the_files() -> None:
    configs = {cell.name: cell.config["config"] for cell in grid(only="seed-3")}
    assert configs["silo/base/seed-3"] == {"lr": 0.1, "model": {"name": "small", "width": 8}}
    assert configs["device/base/seed-3"]["lr"] == 0.2
    assert configs["device/ssd/seed-3"] == {
        "lr": 0.3,
        "batch_size": 8,
        "model": {"name": "small", "width": 16},
    }


def test_seeds_are_paired_between_methods_and_kept_apart_between_settings() -> None:
    made = {cell.name: cell for cell in grid()}
    assert made["silo/base/seed-3"].partition == made["silo/ssd/seed-3"].partition
    assert made["silo/base/seed-3"].partition != made["silo/base/seed-5"].partition
    assert made["silo/base/seed-3"].partition != made["device/base/seed-3"].partition
    assert {cell.config["seed"] for cell in made.values() if cell.seed == 3} == {3}


def test_a_partition_with_other_options_is_another_file() -> None:
    settings = [{**FILE["settings"][0], "partition": {"alpha": 0.2}}]
    assert grid(changed(settings=settings))[0].partition != grid()[0].partition


def test_a_cohort_is_everybody_unless_the_setting_says_otherwise() -> None:
    sizes = {cell.setting: cell.config["cohort_size"] for cell in grid()}
    assert sizes == {"silo": 4, "device": 2}


def test_a_method_may_be_confined_to_settings_and_left_unmeasured() -> None:
    methods = [FILE["methods"][0], {"name": "ssd", "settings": ["silo"], "measured": False}]
    made = grid(changed(methods=methods))
    assert [cell.setting for cell in made if cell.method == "ssd"] == ["silo", "silo"]
    assert all(bool(cell.measures) == bool(cell.exports) == (cell.method == "base") for cell in made)


def test_options_become_arguments_of_the_commands() -> None:
    cell = grid()[0]
    assert cell.config["partition"] == ["--alpha", "0.1"]
    assert cell.measures[""] == {
        "data": "digits",
        "arguments": ["--labels-per-class", "2", "--labels-per-class", "5", "--draws", "3"],
    }
    settings = [{**FILE["settings"][0], "partition": {"scheme": "iid"}}]
    assert grid(changed(settings=settings))[0].config["partition"] == ["--scheme", "iid"]


def test_a_measure_says_which_parts_of_the_model_it_needs_and_whom_it_is_for() -> None:
    measures = [
        {"measures": ["quality"], "features": ["h", "z"], "methods": ["base"]},
        {"name": "transfer", "data": "mnist", "head": True},
    ]
    made = {cell.method: cell for cell in grid(changed(evaluation={"measures": measures}), only="silo")}
    assert set(made["base"].measures) == {"", "transfer"}
    assert set(made["ssd"].measures) == {"transfer"}
    assert made["base"].exports == ("encoder", "projector", "head")
    assert made["ssd"].exports == ("encoder", "head")
    assert made["base"].measures["transfer"] == {"data": "mnist", "arguments": [], "head": True}


def test_a_method_without_a_projector_has_none_to_take_out() -> None:
    value = changed(
        methods=[{"name": "fed_align_uniform", "config": {"projector": False}}],
        evaluation={"measures": [{"features": ["h", "z"]}]},
    )
    assert grid(value)[0].exports == ("encoder",)


def test_a_measures_command_names_what_it_measures(tmp_path: Path) -> None:
    how = {"data": "digits", "arguments": ["--features", "h", "--features", "z", "--draws", "3"]}

    def made(parts: tuple[str, ...]) -> dict[str, Any]:
        partition = tmp_path / "p.json"
        given = measure_arguments(how, tmp_path, parts, partition, "/data", seed=7, threads=1, device="cpu")
        assert given[:3] == ["-m", "ssd", "evaluate"]
        with command("evaluate").make_context("evaluate", given[3:]) as context:
            return context.params

    (tmp_path / "encoder.safetensors").touch()
    with pytest.raises(DaemonFailed, match="without taking its projector out"):
        made(("encoder", "projector"))
    (tmp_path / "projector.safetensors").touch()
    options = made(("encoder", "projector"))
    assert (options["seed"], options["draws"], options["root"]) == (7, 3, Path("/data"))
    assert options["partition_file"] == tmp_path / "p.json"
    assert options["projector_file"] == tmp_path / "projector.safetensors"
    assert options["kinds"] == ("h", "z")
    without = made(("encoder",))
    assert (without["kinds"], without["projector_file"]) == (("h",), None)


def test_a_flag_is_given_or_left_out() -> None:
    flags = {"few_labels": click.Option(["--few-labels"], is_flag=True)}
    assert arguments({"few_labels": True}, flags, "x") == (["--few-labels"], [])
    assert arguments({"few_labels": False}, flags, "x") == ([], [])
    assert arguments({"few_labels": 1}, flags, "x")[1] == ["x.few_labels must be true or false, got 1"]


def test_a_methods_file_is_sought_beside_the_experiment_and_its_content_is_part_of_the_cell(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    value = changed(methods=[{"name": "mine", "file": "mine.py"}])
    first = cells(parse(value, tmp_path))[0]
    assert first.file == tmp_path / "mine.py"
    (tmp_path / "mine.py").write_text("x = 2\n")
    again = cells(parse(value, tmp_path))[0]
    assert [line.split(":")[0] for line in differing(first.config, again.config)] == ["method.source"]


# Refusals.


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"setings": []}, "did you mean settings"),
        ({"experiment": {"name": "x", "seeds": [1], "job": 2}}, "did you mean jobs"),
        ({"experiment": {"name": "x", "seeds": [1, 1]}}, "seeds must be different"),
        ({"experiment": {"name": "../x", "seeds": [1]}}, "cannot name a folder"),
        ({"experiment": {"name": "x", "seeds": [1], "base": "sdd"}}, "did you mean ssd"),
        ({"settings": []}, "there are no [[settings]]"),
        ({"settings": FILE["settings"][:1] * 2}, "'silo' is there twice"),
        ({"methods": [{"name": "ssd"}, {"name": "ssd"}]}, "'ssd' is there twice"),
        ({"methods": [{"label": "x"}]}, "methods[0].name: is missing"),
        ({"methods": [{"name": "ssd", "settings": ["silos"]}]}, "did you mean silo"),
        ({"settings": [{"name": "a", "clients": 2, "rounds": 1, "cohort_size": 3}]}, "cohort_size must be 1 to 2"),
        ({"settings": [{"name": "a", "clients": 2, "rounds": 1, "partition": {"alfa": 1}}]}, "did you mean alpha"),
        ({"settings": [{"name": "a", "clients": 2, "rounds": 1, "partition": {"alpha": "x"}}]}, "alpha: 'x' is not"),
        ({"evaluation": {"measures": [{"draw": 1}]}}, "did you mean draws"),
        ({"evaluation": {"measures": [{"draws": [1]}]}}, "draws takes one value"),
        ({"evaluation": {"measures": [{"data": "cifar"}]}}, "'cifar' is not one of"),
        ({"evaluation": {"measures": [{}, {}]}}, "'' is there twice"),
        ({"methods": [{"name": "x", "file": "no-such.py"}]}, "no-such.py: No such file"),
        (
            {"claims": [{"name": "c", "text": "t", "measure": "m", "method": "ssd", "against": "bas"}]},
            "did you mean base",
        ),
        ({"methods": [{"name": "ssd", "coordinator": {"run": {"seed": 4}}}]}, "methods 'ssd'.coordinator.run.seed is"),
        (
            {"settings": [{"name": "a", "clients": 2, "rounds": 1, "coordinator": {"method": {"name": "x"}}}]},
            "settings 'a'.coordinator.method is decided by the experiment",
        ),
        (
            {
                "methods": [FILE["methods"][0], {"name": "ssd", "settings": ["silo"]}],
                "claims": [
                    {"name": "c", "text": "t", "measure": "m", "method": "ssd", "against": "base",
                     "setting": "device"}
                ],
            },
            "claims 'c': no setting it is about has both 'ssd' and 'base'",
        ),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_named(tables: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        grid(changed(**tables))
    assert words in str(caught.value)


def test_all_mistakes_are_said_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        parse(changed(data={"kind": "cifar11"}, experiment={"name": "x", "seed": [1]}), Path())
    assert len(caught.value.mistakes) == 3


def test_a_file_that_is_no_toml_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("[experiment\n")
    with pytest.raises(SettingsError, match="x.toml"):
        load(tmp_path / "x.toml")


def test_a_methods_own_configuration_is_checked_before_anything_runs() -> None:
    with pytest.raises(SettingsError) as caught:
        check_methods(grid(changed(config={"lrr": 0.1})))
    assert "silo/base" in str(caught.value)
    assert "did you mean lr" in str(caught.value)


def test_a_data_set_whose_files_are_nowhere_is_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert needs_root(grid()) == []
    value = changed(evaluation={"measures": [{"data": "mnist"}]}, data={"kind": "cifar10"})
    assert needs_root(grid(value)) == ["cifar10", "mnist"]
    monkeypatch.delenv("SSD_DATA_ROOT", raising=False)
    example = EXAMPLES / "ssd-table1.toml"
    done = CliRunner().invoke(experiment, [str(example), "--out", str(tmp_path / "x")], standalone_mode=False)
    assert done.return_value == 2
    assert "--root or $SSD_DATA_ROOT" in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_methods_own_strategy_and_limits_are_its_own_business() -> None:
    tables = {"strategy": {"name": "adam"}, "round": {"max_client_failures": 9}, "run": {"warm_start": "x"}}
    value = changed(methods=[{"name": "ssd", "coordinator": tables}])
    assert grid(value)[0].config["coordinator"] == tables


# What is there already.


def test_differing_keys_are_named_with_both_values() -> None:
    assert differing({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "e": 5}) == [
        "a.c: 2 there, 4 now",
        "d: 3 there, nothing now",
        "e: nothing there, 5 now",
    ]


def test_a_folder_of_another_configuration_is_refused_and_of_the_same_is_not(tmp_path: Path) -> None:
    cell = grid()[0]
    refuse_changes(tmp_path, cell)
    folder_of(tmp_path, cell).mkdir(parents=True)
    write_json(folder_of(tmp_path, cell) / CONFIG, cell.config)
    refuse_changes(tmp_path, cell)
    (other,) = (each for each in grid(changed(config={"lr": 0.5})) if each.name == cell.name)
    with pytest.raises(CellRefused, match=r"config\.lr: 0\.1 there, 0\.5 now"):
        refuse_changes(tmp_path, other)


def test_a_part_of_a_grid_is_refused_where_other_cells_were_trained_otherwise(tmp_path: Path) -> None:
    """A report would compare them with what is trained now."""
    (trained,) = grid(only="silo/base/seed-3")
    with claimed(tmp_path):
        folder_of(tmp_path, trained).mkdir(parents=True)
        write_json(folder_of(tmp_path, trained) / CONFIG, trained.config)
    value = parse(changed(config={"lr": 0.5}), Path())
    wanted = cells(value, "silo/ssd/seed-3")
    with pytest.raises(CellRefused, match=r"silo/base/seed-3 was run with other settings"):
        run_experiment(value, wanted, tmp_path, Console(file=io.StringIO()), root=None, jobs=1, keep=False)
    assert not (tmp_path / "experiment.json").exists()


def test_a_tree_that_no_commit_holds_is_refused_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Path] = []
    monkeypatch.setattr(provenance, "code_version", lambda: "v0.1-3-gabc1234-dirty")
    monkeypatch.setattr(runner, "run_experiment", lambda *given, **_: started.append(given[2]) or [])
    # One method alone: there are no reference rows to look at first.
    arguments = [str(EXAMPLES / "digits.toml"), "--out", str(tmp_path / "x"), "--only", "/ssd/"]
    refused = CliRunner().invoke(experiment, arguments, standalone_mode=False)
    assert refused.return_value == 3
    assert "v0.1-3-gabc1234-dirty" in refused.stderr
    assert "--allow-dirty" in refused.stderr
    assert not started
    listed = CliRunner().invoke(experiment, [*arguments, "--list"], standalone_mode=False)
    assert listed.return_value == 0  # makes nothing
    allowed = CliRunner().invoke(experiment, [*arguments, "--allow-dirty"], standalone_mode=False)
    assert allowed.return_value == 0
    monkeypatch.setattr(provenance, "code_version", lambda: "v0.1-3-gabc1234")
    clean = CliRunner().invoke(experiment, arguments, standalone_mode=False)
    assert clean.return_value == 0
    assert started == [tmp_path / "x"] * 2


def test_a_cell_says_with_which_code_it_was_begun_and_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version, told in (("v1", "v1"), ("v1", "v1"), ("v2", "v1, then v2"), ("v1", "v1, then v2, then v1")):
        monkeypatch.setattr(cell_process, "code_version", lambda version=version: version)
        assert cell_process.code_of(tmp_path) == told


def test_a_cell_is_finished_when_it_has_every_measure_as_it_is_wanted(tmp_path: Path) -> None:
    cell = grid()[0]
    folder_of(tmp_path, cell).mkdir(parents=True)
    assert not finished(tmp_path, cell)
    result = {"measures": {"": {"how": cell.measures[""], "values": {"knn_all": 0.5}}}}
    write_json(folder_of(tmp_path, cell) / RESULT, result)
    assert finished(tmp_path, cell)
    other = grid(changed(evaluation={"every": 1, "measures": [{"draws": 4}, {"name": "more"}]}))[0]
    assert missing_measures(result, other.measures) == ["", "more"]
    assert not finished(tmp_path, other)


def test_a_damaged_result_is_no_result(tmp_path: Path) -> None:
    cell = grid()[0]
    folder_of(tmp_path, cell).mkdir(parents=True)
    (folder_of(tmp_path, cell) / RESULT).write_text(json.dumps({"measures": {}})[:5])
    with pytest.raises(CellRefused, match="damaged"):
        finished(tmp_path, cell)


def test_a_folder_is_taken_by_one_runner_and_never_from_somebody_else(tmp_path: Path) -> None:
    with claimed(tmp_path / "new"), pytest.raises(CellRefused, match="at work"), claimed(tmp_path / "new"):
        pass
    with claimed(tmp_path / "new"):
        pass
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "x").write_text("")
    with pytest.raises(CellRefused, match="no experiment's"), claimed(tmp_path / "theirs"):
        pass


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_is_a_grid_whose_methods_accept_their_configuration(path: Path) -> None:
    check_methods(cells(load(path)))


# Progress.


def test_a_pipe_gets_a_line_for_every_phase_and_some_rounds() -> None:
    out = io.StringIO()
    display = Display(Console(file=out, width=120), total=3, every=2, clock=lambda: 61.0)
    with display:
        display.skipped(1)
        for reached in (0, 1, 2, 3, 4):
            display.cell("a/b/seed-1", {"phase": "training", "round": reached, "rounds": 4, "loss": 1.5})
        display.cell(
            "a/b/seed-1", {"phase": "training", "round": 4, "rounds": 4, "note": "client-1 [failed]"}
        )
        display.cell("a/b/seed-1", {"phase": "done"})
        display.ended("a/b/seed-1", failed=False)
        display.ended("a/c/seed-1", failed=True)
    lines = [line.partition("] ")[2] for line in out.getvalue().splitlines()]
    assert lines == [
        "a/b/seed-1: training",
        "a/b/seed-1: training, round 2 of 4, loss 1.500",
        "a/b/seed-1: training, round 4 of 4, loss 1.500",
        "a/b/seed-1: client-1 [failed]",
        "a/b/seed-1: finished (2 of 3 done)",
        "a/c/seed-1: failed (2 of 3 done)",
    ]


def test_a_terminal_gets_the_running_cells() -> None:
    out = io.StringIO()
    with Display(Console(file=out, force_terminal=True, width=120, no_color=True), total=2) as display:
        display.cell("a/b/seed-1", {"phase": "training", "round": 3, "rounds": 4, "loss": None})
        display.cell("a/c/seed-1", {"phase": "measuring"})
        display.ended("a/c/seed-1", failed=False)
    assert "a/b/seed-1  training, round 3 of 4, loss -" in out.getvalue()
    assert "1 of 2 cells finished, 0 failed" in out.getvalue()
