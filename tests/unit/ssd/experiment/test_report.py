"""`ssd report` on hand-made results: the numbers, the verdicts, and the pages they stand on."""

from __future__ import annotations

import copy
import csv
import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ssd.experiment.layout import CellRefused, write_json
from ssd.experiment.report.claims import judge, verdicts
from ssd.experiment.report.document import Grid, Heading, Paragraph
from ssd.experiment.report.pages import markdown, page
from ssd.experiment.report.pictures import mean_rows
from ssd.experiment.report.results import Results, finished_before, read
from ssd.experiment.report.sections import document
from ssd.experiment.report.statistics import (
    Difference,
    blocked,
    holm,
    p_value,
    paired,
    seeds_needed,
    spread,
    t_quantile,
)
from ssd.experiment.report.words import difference_words, ordered, row_of, shown, spread_words
from ssd.experiment.report.write import write_report
from ssd.experiment.run import note_claims
from ssd.experiment.settings import parse
from ssd.settings import SettingsError, to_json

CLAIM = {
    "name": "better",
    "text": "SSD beats its base",
    "measure": "knn_all",
    "method": "ssd",
    "against": "base",
    "threshold": 0.01,
}
FILE: dict[str, Any] = {
    "experiment": {"name": "tiny", "seeds": [1, 2, 3], "references": []},
    "data": {"kind": "digits"},
    "settings": [{"name": "silo", "clients": 4, "rounds": 2, "partition": {"alpha": 0.1}}],
    "methods": [
        {"name": "fed_align_uniform", "label": "base", "title": "Base <b>"},
        {"name": "ssd", "title": "SSD | ours"},
    ],
    "evaluation": {"measures": [{"draws": 3}]},
    "claims": [CLAIM],
}
KNN = {"base": {1: 0.50, 2: 0.60, 3: 0.55}, "ssd": {1: 0.53, 2: 0.64, 3: 0.60}}


def result(method: str, seed: int) -> dict[str, Any]:
    values = {"knn_all": KNN[method][seed], "uniformity_inter": 3.0, "train_samples": 10.0, "knn_k": 20.0}
    rounds = [
        {"round": n, "statistics": {"loss": -float(n)}, "seconds": 1.0, "bytes_up": 5, "bytes_down": 3}
        for n in (1, 2)
    ]
    return {
        "config": {"data": "digits"},
        "model_version": 2,
        "model_digest": f"{seed}" * 64,
        "partition_digest": "ab" * 32,
        "run_id": "r",
        "rounds": rounds,
        "evaluations": {"0": {"knn_all": 0.1}, "2": {"knn_all": 0.4, "personalised_accuracy": 0.9}},
        "measures": {"": {"how": {"data": "digits", "arguments": ["--draws", "3"]}, "values": values}},
        "cost": {"bytes_up": 10, "bytes_down": 6, "round_seconds": 2.0, "processor_seconds": 4.0,
                 "wall_seconds": 3.0, "resumed": False},
        "versions": {"python": "3"}, "machine": {"cores": 2}, "code": "v1",
    }  # fmt: skip


def experiment_in(folder: Path, missing: tuple[str, ...] = (), **tables: Any) -> Results:
    experiment = parse({**copy.deepcopy(FILE), **tables}, folder)
    write_json(folder / "experiment.json", to_json(experiment))
    for method in ("base", "ssd"):
        for seed in (1, 2, 3):
            name = f"silo/{method}/seed-{seed}"
            if name not in missing:
                (folder / "cells" / name).mkdir(parents=True)
                write_json(folder / "cells" / name / "result.json", result(method, seed))
    return read(folder)


# What belongs together.


def test_numbers_that_were_taken_otherwise_than_the_others_are_left_out_and_named(tmp_path: Path) -> None:
    experiment_in(tmp_path)
    folder = tmp_path / "cells/silo/ssd/seed-2"
    older = result("ssd", 2)
    older["measures"][""]["how"]["arguments"] = ["--draws", "5"]
    write_json(folder / "result.json", older)
    results = read(tmp_path)
    assert results.values("silo", "ssd", "knn_all") == {1: 0.53, 3: 0.60}
    assert verdicts(results)[0].word == "undecided"
    told = markdown(document(results, {}), tmp_path)
    assert "left out: silo/ssd/seed-2: the measure without a name." in told
    write_json(folder / "result.json", result("ssd", 2))
    assert "left out" not in markdown(document(read(tmp_path), {}), tmp_path)


def test_a_mean_over_some_of_the_clients_is_said_to_be_one(tmp_path: Path) -> None:
    experiment_in(tmp_path)
    for seed, measured in ((1, 4.0), (2, 3.0)):
        found = result("ssd", seed)
        found["evaluations"]["2"]["personalised_clients"] = measured
        write_json(tmp_path / f"cells/silo/ssd/seed-{seed}" / "result.json", found)
    told = markdown(document(read(tmp_path), {}), tmp_path)
    assert "Not all of the 4 clients were measured at the end: silo/ssd/seed-2: 3." in told


def test_cells_that_no_commit_can_make_again_or_were_made_elsewhere_are_marked(tmp_path: Path) -> None:
    experiment_in(tmp_path)
    same = markdown(document(read(tmp_path), {}), tmp_path)
    assert "different ways" not in same
    assert "no commit" not in same
    foreign = {**result("ssd", 2), "code": "v1-dirty", "packages": "ef" * 32}
    write_json(tmp_path / "cells/silo/ssd/seed-2/result.json", foreign)
    found = markdown(document(read(tmp_path), {}), tmp_path)
    assert "made in 2 different ways" in found
    assert "1 cells (\\*) were made by code that no commit holds" in found.replace("(*)", "(\\*)")
    assert "Code: v1 and changes that no commit holds. All packages: efefefefefefefef." in found
    assert "-dirty" not in found


# Arithmetic.


def test_mean_and_sample_deviation_over_seeds() -> None:
    found = spread([0.5, 0.6, 0.55])
    assert found is not None
    assert found.mean == pytest.approx(0.55)
    assert found.deviation == pytest.approx(0.05)
    assert spread([]) is None
    one = spread([2.0])
    assert one is not None
    assert (one.mean, one.deviation, one.count) == (2.0, None, 1)


def test_quantiles_are_those_of_the_t_table() -> None:
    assert [round(t_quantile(n), 3) for n in (1, 2, 4, 9, 30)] == [12.706, 4.303, 2.776, 2.262, 2.042]


def test_a_paired_difference_is_of_equal_seeds_and_its_interval_is_students() -> None:
    found = paired({1: 0.53, 2: 0.64, 3: 0.60, 9: 5.0}, {1: 0.50, 2: 0.60, 3: 0.55, 8: 7.0})
    assert found is not None
    assert found.count == 3
    assert found.mean == pytest.approx(0.04)
    assert found.interval is not None
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert found.interval == pytest.approx((0.04 - half, 0.04 + half), abs=1e-6)


def test_one_pair_has_no_interval_and_no_pair_no_difference() -> None:
    one = paired({1: 2.0}, {1: 0.5})
    assert one == Difference(1.5, None, 1)
    assert paired({1: 2.0}, {2: 0.5}) is None


def test_an_error_pooled_over_methods_is_that_of_a_randomised_block_model() -> None:
    draw = np.random.default_rng(0)
    seeds = draw.normal(0.0, 1.0, 3)
    noise = draw.normal(0.0, 0.01, (7, 3))
    values = {
        f"m{method}": {seed: method + float(seeds[seed] + noise[method, seed]) for seed in range(3)}
        for method in range(7)
    }
    found = blocked(values, "m3", "m0")
    pair = paired(values["m3"], values["m0"])
    assert found is not None
    assert pair is not None
    assert found.mean == pytest.approx(pair.mean)
    assert (found.degrees, pair.degrees) == (12, 2)
    # By least squares with a column for every method and seed.
    design = [
        [float(m == k) for k in range(7)] + [float(s == k) for k in (1, 2)]
        for m in range(7)
        for s in range(3)
    ]
    seen = [values[f"m{m}"][s] for m in range(7) for s in range(3)]
    _, (rest,), _, _ = np.linalg.lstsq(np.array(design), np.array(seen), rcond=None)
    assert found.error == pytest.approx(math.sqrt(2.0 * rest / 12 / 3))
    assert blocked(values, "m3", "other") is None
    assert blocked({"a": {1: 0.0}, "b": {1: 1.0}}, "a", "b") is None
    two = blocked({name: values[name] for name in ("m0", "m3")}, "m3", "m0")
    assert two is not None
    assert two.interval == pytest.approx(pair.interval)


def test_several_claims_are_corrected_by_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_p_values_are_students_and_seeds_are_counted_until_an_interval_decides() -> None:
    first, second = {1: 0.53, 2: 0.64, 3: 0.60}, {1: 0.50, 2: 0.60, 3: 0.55}
    found = paired(first, second)
    expected = stats.ttest_rel([first[s] for s in (1, 2, 3)], [second[s] for s in (1, 2, 3)]).pvalue
    assert p_value(found, 0.0) == pytest.approx(expected)
    assert seeds_needed(found, 0.0) == 3
    assert seeds_needed(found, 0.04) is None
    assert p_value(paired({1: 1.0}, {1: 0.0}), 0.0) is None
    noisy = paired({1: 0.0, 2: 3.0, 3: 0.3}, {1: 0.0, 2: 0.0, 3: 0.0})
    needed = seeds_needed(noisy, 0.0)
    assert needed is not None
    assert needed > 3


@settings(deadline=None)  # the first example imports scipy
@given(
    st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=8),
    st.floats(-5, 5),
)
def test_what_both_methods_share_does_not_move_their_difference(
    pairs: list[tuple[float, float]], shift: float
) -> None:
    method = {seed: a for seed, (a, _) in enumerate(pairs)}
    base = {seed: b for seed, (_, b) in enumerate(pairs)}
    low, high = interval(method, base)
    moved = interval(
        {seed: a + shift for seed, a in method.items()}, {seed: b + shift for seed, b in base.items()}
    )
    assert moved == pytest.approx((low, high), abs=1e-6)
    assert interval(base, method) == pytest.approx((-high, -low), abs=1e-9)


def interval(method: dict[int, float], base: dict[int, float]) -> tuple[float, float]:
    found = paired(method, base)
    assert found is not None
    assert found.interval is not None
    return found.interval


# Verdicts.


@pytest.mark.parametrize(
    ("interval", "direction", "word"),
    [
        ((0.02, 0.05), "above", "holds"),
        ((0.02, 0.05), "below", "fails"),
        ((-0.05, 0.0), "above", "fails"),
        ((-0.05, 0.0), "below", "holds"),
        ((0.0, 0.05), "above", "undecided"),
        ((0.01, 0.05), "above", "undecided"),
        ((-0.05, 0.01), "below", "undecided"),
    ],
)
def test_a_claim_is_decided_only_by_a_whole_interval_on_one_side(
    interval: tuple[float, float], direction: str, word: str
) -> None:
    assert judge(Difference(0.0, interval, 5), direction, 0.01, 5) == word


def test_nothing_is_decided_while_seeds_are_missing_or_without_an_interval() -> None:
    clear = Difference(1.0, (0.9, 1.1), 4)
    assert judge(clear, "above", 0.0, 4) == "holds"
    assert judge(clear, "above", 0.0, 5) == "undecided"
    assert judge(Difference(1.0, None, 1), "above", 0.0, 1) == "undecided"
    assert judge(None, "above", 0.0, 3) == "undecided"


def test_a_claim_is_judged_on_its_measure_and_methods(tmp_path: Path) -> None:
    (found,) = verdicts(experiment_in(tmp_path))
    assert found.difference is not None
    assert found.difference.mean == pytest.approx(0.04)
    assert (found.setting, found.word, found.planned) == ("silo", "holds", 3)


def test_a_claim_waits_for_missing_cells(tmp_path: Path) -> None:
    (found,) = verdicts(experiment_in(tmp_path, missing=("silo/base/seed-2",)))
    assert found.difference is not None
    assert (found.word, found.difference.count) == ("undecided", 2)


def test_a_claim_that_came_after_results_is_known_by_it(tmp_path: Path) -> None:
    early = parse({**copy.deepcopy(FILE)}, tmp_path)
    note_claims(tmp_path, early)
    results = experiment_in(tmp_path)
    lowered = parse({**copy.deepcopy(FILE), "claims": [{**CLAIM, "threshold": -1.0}]}, tmp_path)
    note_claims(tmp_path, lowered)
    note_claims(tmp_path, early)
    assert finished_before(results, early.claims[0]) == 0
    assert finished_before(results, lowered.claims[0]) == 6


def test_the_best_evaluations_are_averaged_where_a_file_asks_for_it(tmp_path: Path) -> None:
    series = {"0": 0.2, "1": 0.9, "2": 0.5, "3": 0.8, "4": None}
    for best, wanted in ((0, None), (1, 0.9), (2, 0.85), (9, 0.6)):
        folder = tmp_path / str(best)
        folder.mkdir()
        results = experiment_in(folder, evaluation={"best": best})
        results.results["silo/ssd/seed-1"]["evaluations"] = {
            version: {"accuracy": value, "loss": 7.0} for version, value in series.items()
        }
        numbers = results.numbers("silo/ssd/seed-1")
        assert numbers.get("best/accuracy") == (None if wanted is None else pytest.approx(wanted))
        assert "best/loss" not in numbers
    assert row_of("best/accuracy").words == "accuracy %, best evaluations of the run"
    with pytest.raises(SettingsError, match="best must not be negative"):
        parse({**FILE, "evaluation": {"best": -1}}, tmp_path)


# Words.


def test_shares_are_percentages_and_counts_have_no_row() -> None:
    assert row_of("knn_all").percent
    assert row_of("z_linear_probe_all").words == "linear probe, all labels % of z"
    assert (
        row_of("evaluated/personalised_accuracy").words
        == "personalised accuracy %, last evaluation of the run"
    )
    assert row_of("transfer/effective_rank").words == "transfer: effective rank ↑"
    assert not row_of("uniformity_inter").percent
    assert not any(
        map(
            shown,
            ["train_samples", "knn_k", "z_knn_k", "x/z_labelled_samples_2_per_class", "knn_2_per_class_std"],
        )
    )


def test_an_evaluation_of_the_run_has_a_row_only_if_no_final_measure_repeats_it() -> None:
    measures = ["uniformity_inter", "knn_all", "evaluated/knn_all", "evaluated/accuracy", "knn_k"]
    assert ordered(measures) == ["knn_all", "uniformity_inter", "evaluated/accuracy"]


def test_numbers_are_written_with_what_is_missing() -> None:
    row = row_of("knn_all")
    assert spread_words(spread([0.5, 0.6]), row, 2) == "55.00 ± 7.07"
    assert spread_words(spread([0.5]), row, 3) == "50.00 (1 of 3 seeds)"
    assert spread_words(None, row, 3) == "missing"
    assert difference_words(Difference(-0.01, (-0.02, 0.0), 3), row) == "-1.00 [-2.00, +0.00], n = 3"
    assert difference_words(Difference(0.01, None, 1), row) == "+1.00, n = 1, no interval"


def test_curves_are_means_over_the_seeds_that_have_the_round() -> None:
    rows = mean_rows([[{"round": 1, "loss": 1.0}, {"round": 2, "loss": 5.0}], [{"round": 1, "loss": 3.0}]])
    assert rows == [{"round": 1, "loss": 2.0}, {"round": 2, "loss": 5.0}]


# Pages.


class Outline(HTMLParser):
    """Whether tags close in order, and what would be fetched from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "img"}:
            self.open.append(tag)
        for name, value in attrs:
            if name in {"src", "href"} and not (value or "").startswith("data:"):
                self.outside.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_report_says_everything_and_needs_nothing_from_outside(tmp_path: Path) -> None:
    results = experiment_in(tmp_path, missing=("silo/ssd/seed-3",))
    said: list[str] = []
    files = write_report(results, tmp_path / "report", None, with_maps=False, say=said.append)
    assert [path.name for path in files] == ["report.html", "report.md", "results.csv", "results.json"]
    text = (tmp_path / "report" / "report.md").read_text()
    assert "5 of 6 cells are finished" in text
    assert "Missing: silo/ssd/seed-3." in text
    assert "| kNN, all labels % | 55.00 ± 5.00 | 58.50 ± 7.78 (2 of 3 seeds) |" in text
    assert "| kNN, all labels % | +3.50 [-2.85, +9.85], n = 2 |" in text
    assert "| better (silo) | SSD beats its base | undecided |" in text
    assert "ssd evaluate --data digits --draws 3" in text
    assert "| silo/ssd/seed-3 | missing | missing | missing |" in text
    assert (tmp_path / "report" / "pictures" / "silo-curves.png").stat().st_size > 1000
    outline = Outline()
    whole = (tmp_path / "report" / "report.html").read_text()
    outline.feed(whole)
    assert (outline.open, outline.outside) == ([], [])
    assert "Base &lt;b&gt;" in whole
    assert "prefers-color-scheme: dark" in whole
    assert "http" not in whole
    with (tmp_path / "report" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    mine = [row for row in rows if (row["method"], row["seed"], row["measure"]) == ("ssd", "2", "knn_all")]
    assert [float(row["value"]) for row in mine] == [0.64]
    whole_json = json.loads((tmp_path / "report" / "results.json").read_text())
    assert whole_json["verdicts"][0]["word"] == "undecided"
    assert len(whole_json["cells"]) == 5


def test_a_number_no_method_could_have_is_not_called_missing(tmp_path: Path) -> None:
    def table(folder: Path, missing: tuple[str, ...]) -> str:
        folder.mkdir()
        results = experiment_in(folder, missing)
        for name, found in results.results.items():
            if "/ssd/" in name:
                found["measures"][""]["values"]["only_ours"] = 1.0
        return markdown(document(results, {}), folder)

    assert "| only ours | - | 1.000 ± 0.000 |" in table(tmp_path / "all", ())
    base = tuple(f"silo/base/seed-{seed}" for seed in (1, 2, 3))
    assert "| only ours | missing | 1.000 ± 0.000 |" in table(tmp_path / "some", base)


def test_tables_survive_bars_and_brackets() -> None:
    blocks = [Heading(1, "a < b"), Paragraph("it *holds* & more"), Grid(["", "x|y"], [["<i>", "1"]], "c")]
    assert "| <i> | 1 |" in markdown(blocks, Path())
    assert r"x\|y" in markdown(blocks, Path())
    assert "<em>holds</em> &amp; more" in page(blocks)
    assert "<td>&lt;i&gt;</td>" in page(blocks)


def test_a_folder_without_an_experiment_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no experiment"):
        read(tmp_path)
    (tmp_path / "experiment.json").write_text("[")
    with pytest.raises(CellRefused, match="damaged"):
        read(tmp_path)
