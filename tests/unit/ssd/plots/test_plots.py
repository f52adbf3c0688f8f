"""Pictures are checked for what they are made of; how they look is for people."""

import math
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image

from ssd.plots import curves as curves_room
from ssd.plots.curves import ACCURACY, RANK, UNIFORMITY, Panel, round_values, run_rows, save_curves
from ssd.plots.representation_map import flatten, save_representation_map
from ssd.plots.style import RUN_COLOURS


def rounds(count: int = 6, level: float = 1.0, every: int = 1) -> list[dict[str, float]]:
    return [
        {"round": float(number), "loss": -level * number, "loss_dsr": 0.07}
        | (
            {"linear_probe_all": 0.5 + 0.05 * number, "effective_rank": level * number}
            if number % every == 0
            else {}
        )
        for number in range(count)
    ]


def has_colour(path: Path, colour: str) -> bool:
    pixels = np.asarray(Image.open(path).convert("RGB"))
    wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return bool((pixels == wanted).all(axis=2).any())


class TestCurves:
    def test_a_picture_holds_a_line_per_run_and_nothing_of_the_display(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = mpl.rcParams.copy()
        monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
        path = tmp_path / "made" / "curves.png"
        save_curves(path, {"SSD": rounds(level=2.0), "FedAlignUniform": rounds()}, title="digits")
        assert Image.open(path).format == "PNG"
        assert has_colour(path, RUN_COLOURS[0])
        assert has_colour(path, RUN_COLOURS[1])
        assert not has_colour(path, RUN_COLOURS[2])
        monkeypatch.undo()
        assert mpl.rcParams.copy() == before

    def test_the_same_numbers_give_the_same_file(self, tmp_path: Path) -> None:
        for name in ("a.png", "b.png"):
            save_curves(tmp_path / name, {"SSD": rounds()})
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()

    def test_only_panels_with_something_measured_are_drawn(self, tmp_path: Path) -> None:
        widths = []
        for panels in ([RANK], [RANK, UNIFORMITY], [RANK, ACCURACY]):
            save_curves(tmp_path / "a.png", {"SSD": rounds()}, panels=panels)
            widths.append(Image.open(tmp_path / "a.png").width)
        assert widths[0] == widths[1] < widths[2]

    def test_rounds_may_be_unordered_unevaluated_or_diverged(self, tmp_path: Path) -> None:
        rows = rounds(9, every=4)[::-1]
        rows[2] = {**rows[2], "loss": math.nan}
        rows[3] = {**rows[3], "loss": math.inf}
        assert curves_room._points(rows, "linear_probe_all") == [(0, 0.5), (4, 0.7), (8, 0.9)]
        losses = [value for _, value in curves_room._points(rows, "loss")]
        assert [math.isnan(value) for value in losses] == [number in (5, 6) for number in range(9)]
        save_curves(tmp_path / "a.png", {"SSD": rows, "one round": rows[:1], "nothing yet": []})

    def test_nothing_to_draw_and_rounds_without_a_number_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no run has any of speed"):
            save_curves(
                tmp_path / "a.png", {"SSD": rounds()}, panels=[Panel(title="Speed", series={"speed": "s"})]
            )
        with pytest.raises(ValueError, match="nothing to draw"):
            save_curves(tmp_path / "a.png", {})
        with pytest.raises(ValueError, match="without its number"):
            save_curves(tmp_path / "a.png", {"SSD": [{"loss": 1.0}]})

    def test_sums_over_the_cohort_become_means_over_batches(self) -> None:
        statistics = {
            "loss_sum": 12.0,
            "dsr_sum": 0.6,
            "embedding_norm_sum": 60.0,
            "batches": 6.0,
            "images": 700.0,
        }
        values = round_values(3, statistics, {"alignment": 0.4})
        assert values == pytest.approx(
            {"round": 3, "loss": 2, "loss_dsr": 0.1, "loss_embedding_norm": 10, "alignment": 0.4}
        )
        assert round_values(1) == {"round": 1.0}
        assert round_values(1, {"loss_sum": 0.0, "batches": 0.0}) == {"round": 1.0}


FEATURES = np.random.default_rng(0).normal(size=(60, 7)) + 0.5


class TestMap:
    def test_pca_is_the_best_flat_picture_of_the_directions(self) -> None:
        flat = flatten(FEATURES, method="pca", seed=0)
        unit = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
        left, singular, _ = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
        assert np.abs(flat) == pytest.approx(np.abs(left[:, :2] * singular[:2]), abs=1e-9)
        assert flatten(9 * FEATURES, method="pca", seed=1) == pytest.approx(flat)

    def test_tsne_is_seeded(self) -> None:
        first = flatten(FEATURES, method="tsne", seed=1)
        assert first.shape == (60, 2)
        assert np.array_equal(first, flatten(FEATURES, method="tsne", seed=1))

    def test_degenerate_representations_are_drawn_too(self, tmp_path: Path) -> None:
        panels = {"one dimension": FEATURES[:, :1], "collapsed": np.ones((60, 7)), "zero": np.zeros((60, 3))}
        save_representation_map(tmp_path / "a.png", panels, [0] * 60)
        assert Image.open(tmp_path / "a.png").format == "PNG"

    @pytest.mark.parametrize("count", [1, 3, 4])
    def test_a_panel_per_encoder_with_classes_clients_and_captions(self, tmp_path: Path, count: int) -> None:
        panels = {f"encoder {number}": torch.from_numpy(FEATURES) for number in range(count)}
        owners = [f"client-{row % 12:03d}" for row in range(60)]
        for name in ("a.png", "b.png"):
            save_representation_map(
                tmp_path / name, panels, [row % 25 for row in range(60)], owners,
                captions={"encoder 0": "uniformity 3.8"}, title="digits", max_points=50,
            )  # fmt: skip
        picture = Image.open(tmp_path / "a.png")
        assert picture.width == pytest.approx(150 * (4.1 * min(count, 3) + 1.6), abs=2)
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()

    def test_names_of_classes_may_be_any_text(self, tmp_path: Path) -> None:
        save_representation_map(
            tmp_path / "a.png", {"$x_1$ 100 %": FEATURES}, [row % 2 for row in range(60)],
            class_names=["_cat $ {", "line\nbreak \udce9 $"],
        )  # fmt: skip

    def test_panels_of_different_images_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        with pytest.raises(ValueError, match=r"\[59, 60\] images"):
            save_representation_map(path, {"a": FEATURES, "b": FEATURES[1:]}, [0] * 60)
        with pytest.raises(ValueError, match=r"\[3, 60\] images"):
            save_representation_map(path, {"a": FEATURES}, [0] * 60, ["x"] * 3)
        with pytest.raises(ValueError, match="cannot draw 0 panels"):
            save_representation_map(path, {}, [0] * 60)
        with pytest.raises(ValueError, match="3 or more"):
            save_representation_map(path, {"a": FEATURES[:2]}, [0] * 2)


def test_rows_of_a_run_hold_losses_and_evaluations_by_version() -> None:
    rounds = [{"round": n, "statistics": {"loss": -float(n), "batches": 3.0}} for n in (1, 2)]
    rows = run_rows(rounds, {0: {"uniformity_inter": 0.05}, 2: {"uniformity_inter": 0.5}})
    assert [row["round"] for row in rows] == [0, 1, 2]
    assert [row.get("loss") for row in rows] == [None, -1.0, -2.0]
    assert [row.get("uniformity_inter") for row in rows] == [0.05, None, 0.5]
    assert all("batches" not in row for row in rows)
