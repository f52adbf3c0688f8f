"""After the federations: measure their encoders on the same images, say it in a table, draw it.

Everything is measured here, on the exported files, with code that knows nothing of the run; the evaluations in
the curves are the evaluator's, as the coordinator published them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group
from rich.text import Text

from ssd.data.images.builtin import BuiltinSet
from ssd.data.partition.partition import Partition
from ssd.data.views.views import PRESETS, Views
from ssd.demo.records import Outcome
from ssd.demo.settings import ALPHA, CLIENTS, DRAWS, LABELS_PER_CLASS, TRAINING, DemoSettings, skew
from ssd.evaluation.beside import raw_pixels
from ssd.evaluation.evaluate import EvaluationOptions, evaluate_encoder
from ssd.evaluation.features import Encode, features, module_encoder
from ssd.export.encoder_file import load_encoder
from ssd.federation.words import duration, size
from ssd.plots.curves import ACCURACY, LOSSES, RANK, SEPARATION, UNIFORMITY, run_rows, save_curves
from ssd.plots.representation_map import save_representation_map
from ssd.plots.table import explain, measures_table

PIXELS, UNTRAINED = "raw pixels", "untrained"
MAP_POINTS = 1000
Measures = Mapping[str, float]


def encoders_of(untrained: Path, outcomes: Sequence[Outcome]) -> dict[str, Encode]:
    """The encoders to compare, by the words of their column."""
    paths = {UNTRAINED: untrained, **{each.contender.title: each.encoder for each in outcomes}}
    return {name: module_encoder(load_encoder(path)[0]) for name, path in paths.items()}


def measure(
    encoders: Mapping[str, Encode], images: BuiltinSet, partition: Partition, seed: int
) -> dict[str, Measures]:
    """Every measure of every encoder, on the same images, labels and views; of raw pixels, the accuracies."""
    options = EvaluationOptions(
        labels_per_class=(LABELS_PER_CLASS,),
        draws=DRAWS,
        seed=seed,
        views=Views(PRESETS[str(TRAINING["views"])]).pair,
    )
    measured: dict[str, Measures] = {}
    pixels = evaluate_encoder(raw_pixels, images.probe(), None, options)
    measured[PIXELS] = {
        name: value for name, value in pixels.items() if name.startswith(("linear_probe", "knn"))
    }
    for name, encode in encoders.items():
        measured[name] = evaluate_encoder(encode, images.probe(), partition.clients, options)
    return measured


def closing_words(
    settings: DemoSettings,
    measured: Mapping[str, Measures],
    outcomes: Sequence[Outcome],
    partition: Partition,
) -> Group:
    """The table and what it means."""
    blank = ["-"] * (len(measured) - len(outcomes))
    per_round = {each.contender.title: traffic(each) for each in outcomes}
    extra = [
        ("sent up per round", [*blank, *(size(up) for up, _ in per_round.values())]),
        ("sent down per round", [*blank, *(size(down) for _, down in per_round.values())]),
        ("time for the rounds", [*blank, *(duration(each.seconds) for each in outcomes)]),
    ]
    lines = explain(measured[UNTRAINED], features="h (the encoder's output)", draws=DRAWS, data="digits")
    smallest, largest, share = skew(
        partition.histograms, {client: len(indices) for client, indices in partition.clients.items()}
    )
    lines.append(
        f"Split: Dirichlet({ALPHA:g}) over {CLIENTS} clients of {smallest} to {largest} images, of which on average "
        f"{100 * share:.0f} % show one digit. Seed {settings.seed} (split, weights, batches, views, labels), "
        f"{settings.rounds} rounds."
    )
    lines += comparison(measured, [each.contender.title for each in outcomes])
    return Group(measures_table(measured, extra), Text(""), *(Text(line) for line in lines))


def comparison(measured: Mapping[str, Measures], titles: Sequence[str]) -> list[str]:
    """What this run says about the methods, and how little one run can say."""
    few = f"linear_probe_{LABELS_PER_CLASS}_per_class"
    before = measured[UNTRAINED][few]
    lines = [
        f"{title}: {points(measured[title][few] - before)} points over the untrained encoder with "
        f"{LABELS_PER_CLASS} labels per class."
        for title in titles
    ]
    if len(titles) == 2:
        base, other = (measured[title] for title in titles)
        lines.append(
            f"{titles[1]} against {titles[0]}: {points(other[few] - base[few])} points there, "
            f"{other['uniformity_inter'] - base['uniformity_inter']:+.3f} uniformity between clients. One seed says "
            "little about differences this small; try others with --seed."
        )
    return lines


def points(difference: float) -> str:
    """A difference of accuracies in percentage points, with its sign."""
    return f"{100 * difference:+.1f}"


def traffic(outcome: Outcome) -> tuple[float, float]:
    """Bytes per round, (up, down), mean over the committed rounds."""
    count = max(1, len(outcome.rounds))
    up = sum(float(record["bytes_up"]) for record in outcome.rounds)
    down = sum(float(record["bytes_down"]) for record in outcome.rounds)
    return up / count, down / count


def draw(
    settings: DemoSettings,
    outcomes: Sequence[Outcome],
    encoders: Mapping[str, Encode],
    measured: Mapping[str, Measures],
    images: BuiltinSet,
) -> tuple[Path, Path]:
    """The curves and the map, as PNG files; their paths."""
    curves, plane = settings.out / "curves.png", settings.out / "map.png"
    # Ours first: the first colour of the palette is SSD's in every picture.
    ordered = sorted(outcomes, key=lambda each: each.contender.method != "ssd")
    save_curves(
        curves,
        {each.contender.title: run_rows(each.rounds, each.evaluations) for each in ordered},
        panels=(LOSSES, SEPARATION, UNIFORMITY, ACCURACY, RANK),
        title=f"Digits, {CLIENTS} clients, Dirichlet({ALPHA:g}), seed {settings.seed}",
    )
    labels = images.test.labels
    assert labels is not None  # a built-in set is labelled
    save_representation_map(
        plane,
        {name: features(encode, images.test) for name, encode in encoders.items()},
        labels.tolist(),
        method="tsne",
        seed=settings.seed,
        max_points=MAP_POINTS,
        captions={
            name: f"kNN {100 * measured[name]['knn_all']:.1f} %, effective rank {measured[name]['effective_rank']:.1f}"
            for name in encoders
        },
        title="Representations of the 360 test digits (t-SNE)",
    )
    return curves, plane
