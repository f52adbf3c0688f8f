"""The measures of several encoders side by side, as a table for people.

One row per measure that anybody has, one column per encoder. What a number means (features, split, how many
images) stands once, in the sentences that `explain` gives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

Measures = Mapping[str, float]
_FEW = re.compile(r"(linear_probe|knn)_(\d+)_per_class")


@dataclass(frozen=True, slots=True)
class Row:
    """One measure: its key in `ssd.evaluation.evaluate`, its words, and how its value is written."""

    key: str
    words: str
    percent: bool = False
    digits: int = 3


def rows_of(columns: Mapping[str, Measures]) -> list[Row]:
    """The rows for what the columns hold, in the order they are read."""
    present = {key for measures in columns.values() for key in measures}
    few = sorted({int(found[2]) for key in present if (found := _FEW.fullmatch(key))})
    rows = []
    for kind, words in (("linear_probe", "linear probe"), ("knn", "kNN")):
        rows += [Row(f"{kind}_{n}_per_class", f"{words}, {n} per class %", percent=True) for n in few]
        rows.append(Row(f"{kind}_all", f"{words}, all labels %", percent=True))
        if kind == "linear_probe":
            rows.append(Row("linear_probe_paper", "linear probe, paper's recipe %", percent=True))
            rows.append(Row("linear_probe_selected", "linear probe, selected recipe %", percent=True))
    rows.append(Row("knn_paper", "kNN, k = 200 %", percent=True))
    rows.append(Row("head_accuracy", "its own classifier %", percent=True))
    for share in (1, 10):
        rows.append(Row(f"fine_tune_{share}", f"fine-tuned on {share} % of labels %", percent=True))
        rows.append(
            Row(
                f"fine_tune_{share}_best_of_4_test_looks",
                "  best of 4 test looks (optimistic) %",
                percent=True,
            )
        )
    for prefix, where in (("", ""), ("test_", ", test")):
        rows += [
            Row(f"{prefix}uniformity_intra", f"uniformity, intra-client{where} ↑"),
            Row(f"{prefix}uniformity_inter", f"uniformity, inter-client{where} ↑"),
            Row(f"{prefix}uniformity_global", f"uniformity, all pairs{where} ↑"),
            Row(f"{prefix}alignment", f"alignment{where} ↓"),
            Row(f"{prefix}effective_rank", f"effective rank{where} ↑", digits=1),
        ]
    return [row for row in rows if row.key in present]


def measures_table(columns: Mapping[str, Measures], extra: Sequence[tuple[str, Sequence[str]]] = ()) -> Table:
    """The table.

    Args:
        columns: measures by encoder, in order.
        extra: further rows: words, then a cell per column.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows_of(columns):
        table.add_row(row.words, *(_cell(row, measures) for measures in columns.values()))
    for words, cells in extra:
        table.add_row(words, *cells)
    return table


def _cell(row: Row, measures: Measures) -> str:
    if row.key not in measures:
        return "-"
    if not row.percent:
        return f"{measures[row.key]:.{row.digits}f}"
    deviation = measures.get(f"{row.key}_std")
    spread = "" if deviation is None else f" ± {100 * deviation:.1f}"
    return f"{100 * measures[row.key]:.1f}{spread}"


def explain(measures: Measures, *, features: str, draws: int, data: str) -> list[str]:
    """What the numbers of a table are measured on.

    Args:
        measures: of one of its columns.
        features: what was measured, in words.
        draws: of a few labels.
        data: name of the labelled images.
    """
    few = sorted({int(found[2]) for key in measures if (found := _FEW.fullmatch(key))})
    train, test = int(measures["train_samples"]), int(measures["test_samples"])
    neighbours = f"; kNN with k = {int(measures['knn_k'])}" if "knn_k" in measures else ""
    accuracy = (
        f"Accuracy: {features}, labels from the training split of {data} ({train} images), tested on its test split "
        f"({test} images){neighbours}."
    )
    lines = [accuracy]
    if few:
        counts = " and ".join(str(n) for n in few)
        lines.append(
            f"{counts} labels per class: mean over {draws} draws, the same for every encoder; ± is their spread."
        )
    return lines + _probe_words(measures) + _fine_tuning_words(measures) + _quality_words(measures)


def _probe_words(measures: Measures) -> list[str]:
    lines = []
    if "linear_probe_paper" in measures:
        lines.append(
            "Paper's recipe: Adam 3e-3, batch 512, last of 200 epochs (the paper does not say which it reports)."
        )
    if "linear_probe_selected" in measures:
        rate, decay, epochs, reached = (
            measures[f"linear_probe_selected_{key}"] for key in ("lr", "weight_decay", "epochs", "validation")
        )
        lines.append(
            f"Selected recipe: Adam {rate:g}, weight decay {decay:g}, {int(epochs)} epochs, chosen on a tenth of the "
            f"training labels ({100 * reached:.1f} % right there), then fitted to all; tested once."
        )
    return lines


def _fine_tuning_words(measures: Measures) -> list[str]:
    sizes = [int(measures[f"fine_tune_{n}_labels"]) for n in (1, 10) if f"fine_tune_{n}" in measures]
    if not sizes:
        return []
    labels = " and ".join(str(size) for size in sizes)
    epochs = int(measures["fine_tune_epochs"])
    lines = [f"Fine-tuning: encoder and a new linear layer on {labels} labels, last of {epochs} epochs."]
    if any(key.endswith("_best_of_4_test_looks") for key in measures):
        lines.append(
            "Best of 4 test looks: as the official code prints; optimistic, it chooses on the test split."
        )
    return lines


def _quality_words(measures: Measures) -> list[str]:
    lines = []
    for prefix, split in (("", "training"), ("test_", "test")):
        if f"{prefix}uniformity_samples" in measures:
            samples = int(measures[f"{prefix}uniformity_samples"])
            lines.append(
                f"Uniformity (−log E exp(−2‖u−v‖²)) and effective rank: the {split} split ({samples} images) without "
                + ("views; alignment: two views of each." if f"{prefix}alignment" in measures else "views.")
            )
    return lines
