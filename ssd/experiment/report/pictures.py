"""The pictures of a report: curves of every setting, and what the encoders of one seed make of the test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssd.data.images.errors import DataError
from ssd.experiment.grid import Place
from ssd.experiment.layout import folder_of
from ssd.experiment.references import REFERENCES, title
from ssd.experiment.report.results import Results
from ssd.federation.plan import ENCODER

Json = Any
MAP_POINTS = 1000


def mean_rows(runs: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """The rounds of several runs as one: the mean of every value over the runs that have it in that round."""
    collected: dict[float, dict[str, list[float]]] = {}
    for rows in runs:
        for row in rows:
            values = collected.setdefault(row["round"], {})
            for name, value in row.items():
                if name != "round":
                    values.setdefault(name, []).append(value)
    return [
        {"round": number, **{name: sum(each) / len(each) for name, each in values.items()}}
        for number, values in sorted(collected.items())
    ]


def curves(results: Results, setting: str, path: Path) -> bool:
    """Draw a setting's curves, means over seeds; False if there is nothing to draw."""
    from ssd.plots.curves import run_rows, save_curves

    runs = {}
    names = {method.label: method.name for method in results.experiment.methods}
    # Ours first: the first colour of the palette is SSD's in every picture.
    for method in sorted(results.methods(setting), key=lambda label: names[label] != "ssd"):
        found = [results.of(setting, method, seed) for seed in results.seeds(setting, method)]
        rows = [
            run_rows(each["rounds"], {int(number): values for number, values in each["evaluations"].items()})
            for each in found
            if each is not None
        ]
        if rows:
            runs[title_of(results, method)] = mean_rows(rows)
    try:
        save_curves(path, runs, title=f"{setting}: means over seeds")
    except ValueError:
        # No run has any of the measures there are panels for.
        return False
    return True


def title_of(results: Results, label: str) -> str:
    """A method's words, or a reference row's."""
    if label in REFERENCES:
        return title(label, title_of(results, results.base))
    return next(method.title for method in results.experiment.methods if method.label == label)


def maps(results: Results, setting: str, path: Path, root: Path | None) -> int | None:
    """Draw the test images as the encoders of a setting's first complete seed represent them.

    Returns:
        The seed; None if no seed has an encoder.

    Raises:
        DataError: the images cannot be read.
    """
    from ssd.data.images.builtin import load_builtin
    from ssd.evaluation.features import features, module_encoder
    from ssd.export.encoder_file import EncoderFileError, load_encoder
    from ssd.plots.representation_map import save_representation_map

    chosen = _encoders(results, setting)
    if chosen is None:
        return None
    seed, files = chosen
    some = results.of(setting, next(iter(files)), seed)
    assert some is not None  # it has an encoder
    panels = {}
    labels: Sequence[int] = ()
    for label, file in files.items():
        try:
            encoder, image = load_encoder(file)
        except EncoderFileError as error:
            raise DataError(f"{file} cannot be read: {error}") from error
        images = load_builtin(some["config"]["data"], image, root)
        test = images.test
        assert test.labels is not None  # a built-in set is labelled
        labels = test.labels.tolist()
        panels[title_of(results, label)] = features(module_encoder(encoder), test)
    save_representation_map(
        path, panels, labels, method="tsne", seed=seed, max_points=MAP_POINTS,
        title=f"{setting}: representations of test images (t-SNE), seed {seed}",
    )  # fmt: skip
    return seed


def _encoders(results: Results, setting: str) -> tuple[int, dict[str, Path]] | None:
    """The seed with most encoders (the first on a tie) and its files by method."""
    best: tuple[int, dict[str, Path]] | None = None
    for seed in results.experiment.experiment.seeds:
        files = {}
        for method in results.methods(setting):
            place = Place(setting=setting, method=method, seed=seed)
            file = folder_of(results.folder, place) / f"{ENCODER}.safetensors"
            if place.name in results.results and file.exists():
                files[method] = file
        if files and (best is None or len(files) > len(best[1])):
            best = seed, files
    return best
