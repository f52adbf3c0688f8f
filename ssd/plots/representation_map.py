"""A flat map of representations: each image a point, coloured by class, its marker by client, a panel per encoder.

PCA (exact, the default) or t-SNE. Maps are for looking at: distances in a t-SNE map mean little, and each panel
has its own axes. The measures beside it (`ssd.evaluation`) are what to compare.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from ssd.plots.style import CLASS_COLOURS, INK, QUIET, new_figure, plain, save_png, styled
from ssd.random_stream import RandomStream

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
COLUMNS = 3


def save_representation_map(
    path: Path,
    panels: Mapping[str, ArrayLike],
    labels: Sequence[int],
    owners: Sequence[str] | None = None,
    *,
    class_names: Sequence[str] | None = None,
    method: Literal["pca", "tsne"] = "pca",
    seed: int = 0,
    max_points: int = 2000,
    captions: Mapping[str, str] | None = None,
    title: str = "",
) -> None:
    """Draw the representations of the same images by several encoders side by side.

    Args:
        path: the PNG file; its folder is made.
        panels: features [N, D] (array or tensor) by name, such as untrained, baseline, SSD; D may differ.
        labels: the class of each image [N].
        owners: the client of each image [N]; None draws one marker for all.
        class_names: words for the classes; None: their numbers.
        method: `pca`, or `tsne` (initialised by PCA, seeded).
        seed: which images are drawn if there are too many, and t-SNE's own randomness.
        max_points: at most this many images, the same in every panel.
        captions: a line under a panel, such as its uniformity.
        title: above everything.

    Raises:
        ValueError: nothing to draw, fewer than three images, or lengths that differ.
    """
    arrays = {name: np.asarray(features, dtype=np.float64) for name, features in panels.items()}
    count = len(labels)
    lengths = {
        *(len(features) for features in arrays.values()),
        count,
        *([] if owners is None else [len(owners)]),
    }
    if not arrays or len(lengths) > 1 or count < 3:
        raise ValueError(
            f"cannot draw {len(arrays)} panels of {sorted(lengths)} images; give each the same, 3 or more"
        )
    rows = list(range(count))
    if count > max_points:
        rows = sorted(RandomStream("map-sample", seed).sample(rows, max_points))
    classes = np.asarray(labels, dtype=np.int64)[rows]
    clients = np.asarray(["" if owners is None else owners[row] for row in rows])
    columns = min(COLUMNS, len(arrays))
    depth = math.ceil(len(arrays) / columns)
    with styled():
        height = 4.35 * depth + (0.45 if title else 0.1)
        # The panels are square: the plain layout would let their titles and captions run into each other.
        figure = new_figure(4.1 * columns + 1.6, height, layout="compressed")
        grid = figure.subplots(depth, columns, squeeze=False)
        for axes in list(grid.flat)[len(arrays) :]:
            axes.set_visible(False)
        for axes, (name, features) in zip(grid.flat, arrays.items(), strict=False):
            _draw(axes, flatten(features[rows], method=method, seed=seed), classes, clients)
            axes.set_title(plain(name))
            if captions and name in captions:
                axes.set_xlabel(plain(captions[name]), loc="left", fontsize=8.5)
        figure.legend(
            handles=_keys(classes, clients, class_names), loc="outside right center", frameon=False, fontsize=8.5,
            handletextpad=0.4, labelspacing=0.35,
        )  # fmt: skip
        if title:
            figure.suptitle(plain(title), x=0.003, ha="left", fontsize=12.5, fontweight="bold", color=INK)
        save_png(figure, path)


def flatten(
    features: NDArray[np.float64], *, method: Literal["pca", "tsne"], seed: int
) -> NDArray[np.float64]:
    """Features [N, D] to [N, 2], centred, each axis' sign fixed so that the same features give the same map."""
    # L2-normalised first: the sphere is what the losses and the uniformity measure see.
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    points = features / np.where(norms > 0, norms, 1.0)
    points = points - points.mean(axis=0)
    # Imported here: scikit-learn takes more than a second to load.
    if method == "tsne":
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

        state = RandomStream("map-tsne", seed).below(2**31)
        perplexity = min(30.0, (len(points) - 1) / 3)
        # One thread: on so few points more of them only wait for each other.
        with threadpool_limits(1):
            flat = TSNE(perplexity=perplexity, init="pca", random_state=state).fit_transform(points)
        return np.asarray(flat, dtype=np.float64)
    # The two leading eigenvectors of the covariance; a third empty column when D = 1.
    values, vectors = np.linalg.eigh(points.T @ points)
    leading = vectors[:, np.argsort(values)[::-1][:2]]
    leading = leading * np.where(leading.sum(axis=0) < 0, -1.0, 1.0)
    flat = points @ leading
    return flat if flat.shape[1] == 2 else np.column_stack([flat, np.zeros(len(flat))])


def _draw(axes: Axes, flat: NDArray[np.float64], classes: NDArray[np.int64], clients: NDArray[Any]) -> None:
    size = float(np.clip(14000 / len(flat), 9, 36))
    names = sorted(set(clients.tolist()))
    for number, client in enumerate(names):
        mine = clients == client
        axes.scatter(
            flat[mine, 0], flat[mine, 1], s=size, marker=MARKERS[number % len(MARKERS)],
            c=[_colour(label) for label in classes[mine].tolist()], linewidths=0.25, edgecolors="white", alpha=0.85,
        )  # fmt: skip
    # Equal scales in both directions: a map with stretched axes lies about the spread.
    centre = (flat.min(axis=0) + flat.max(axis=0)) / 2
    half = max(float((flat.max(axis=0) - flat.min(axis=0)).max()) / 2 * 1.06, 1e-12)
    axes.set_xlim(centre[0] - half, centre[0] + half)
    axes.set_ylim(centre[1] - half, centre[1] + half)
    axes.set_aspect("equal")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color("#DDDDDD")


def _keys(
    classes: NDArray[np.int64], clients: NDArray[Any], class_names: Sequence[str] | None
) -> list[Line2D]:
    """Legend entries: the classes as dots of their colour, then the clients as grey markers."""

    def heading(words: str) -> Line2D:
        return Line2D([], [], linestyle="none", label=f"$\\bf{{{words}}}$")

    def key(marker: str, colour: str, words: str) -> Line2D:
        return Line2D([], [], linestyle="none", marker=marker, markersize=6, color=colour, label=plain(words))

    present = sorted(set(classes.tolist()))
    keys = [heading("class")]
    keys += [
        key("o", _colour(label), class_names[label] if class_names else str(label)) for label in present[:20]
    ]
    if len(present) > 20:
        keys.append(heading(f"and\\ {len(present) - 20}\\ more"))
    names = sorted(set(clients.tolist()))
    if names != [""]:
        keys += [Line2D([], [], linestyle="none", label=" "), heading("client")]
        keys += [key(MARKERS[n % len(MARKERS)], QUIET, name) for n, name in enumerate(names[: len(MARKERS)])]
        if len(names) > len(MARKERS):
            keys.append(heading(f"and\\ {len(names) - len(MARKERS)}\\ more"))
    return keys


def _colour(label: int) -> str:
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]
