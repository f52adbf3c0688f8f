"""docs/pictures/learning-curves.png from docs/results/fedgen-mnist: `PYTHONPATH=. python docs/tools/learning_curves.py`.

Accuracy of the global model on all test images by round, and by what was sent up until then: mean over seeds, and the
band from the lowest to the highest. Nothing is smoothed or chosen; the raw numbers are those of the report.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from ssd.plots.style import RUN_COLOURS, new_figure, quiet_axes, save_png, styled

DOCS = Path(__file__).resolve().parents[2] / "docs"
RESULTS = DOCS / "results" / "fedgen-mnist" / "results.json.gz"
PICTURE = DOCS / "pictures" / "learning-curves.png"
METHODS = {
    "fedavg": "FedAvg",
    "fedgen": "FedGen, its code's form",
    "fedgen-averaged-head": "FedGen, sums only",
}
SETTING, SEEDS, MEASURE = "alpha-0.1", (1, 2, 3), "accuracy"


def curve(cell: Mapping[str, Any]) -> NDArray[np.float64]:
    """Columns of one run: version, megabytes sent up until then, accuracy; float64 [versions measured, 3]."""
    sent = np.cumsum([0.0, *(each["bytes_up"] for each in cell["rounds"])]) / 1e6
    measured = sorted((int(version), values[MEASURE]) for version, values in cell["evaluations"].items())
    return np.array([(version, sent[version], value) for version, value in measured])


def main() -> None:
    """Draw the picture."""
    cells = json.loads(gzip.decompress(RESULTS.read_bytes()))["cells"]
    with styled():
        figure = new_figure(9.0, 3.2)
        by_round, by_bytes = figure.subplots(1, 2, sharey=True)
        for colour, (method, name) in zip(RUN_COLOURS, METHODS.items(), strict=False):
            runs = np.array([curve(cells[f"{SETTING}/{method}/seed-{seed}"]) for seed in SEEDS])
            low, middle, high = runs[:, :, 2].min(0), runs.mean(0), runs[:, :, 2].max(0)
            for axes, column in ((by_round, 0), (by_bytes, 1)):
                dashes = (0, (4, 3)) if method == "fedgen-averaged-head" else "-"
                axes.plot(
                    middle[:, column], middle[:, 2], color=colour, label=name, linewidth=1.8, linestyle=dashes
                )
                axes.fill_between(middle[:, column], low, high, color=colour, alpha=0.15, linewidth=0)
        for axes, below in ((by_round, "round"), (by_bytes, "sent up by all clients, MB")):
            quiet_axes(axes)
            axes.set_xlabel(below)
            axes.set_ylim(0.6, 1.0)
        by_round.set_title("MNIST, accuracy on all test images")
        by_round.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        by_round.legend(frameon=False, loc="lower right")
        by_bytes.set_title("the same, by traffic")
        save_png(figure, PICTURE)


if __name__ == "__main__":
    main()
