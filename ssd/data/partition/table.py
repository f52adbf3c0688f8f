"""Prints a partition for people: how many images of each class every client has."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from ssd.data.partition.partition import Partition

_MOST_CLASSES = 20


def split_table(partition: Partition) -> Table:
    """A row per client: its images, and (for up to twenty classes) how many of each."""
    classes = sorted({label for counts in partition.histograms.values() for label in counts})
    shown = classes if len(classes) <= _MOST_CLASSES else []
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("client")
    table.add_column("images", justify="right")
    if partition.test is not None:
        table.add_column("test", justify="right")
    table.add_column("classes", justify="right")
    for label in shown:
        table.add_column(str(label), justify="right")
    for client, indices in partition.clients.items():
        counts = partition.histograms.get(client, {})
        cells = [str(counts[label]) if counts.get(label) else "·" for label in shown]
        test = [] if partition.test is None else [str(len(partition.test.clients[client]))]
        table.add_row(client, str(len(indices)), *test, str(len(counts)) if counts else "-", *cells)
    return table


def describe_split(partition: Partition) -> Text:
    """Describes how a partition was made, in one sentence."""
    how = "dealt out at random" if partition.alpha is None else f"Dirichlet({partition.alpha:g})"
    if partition.scheme == "fedgen":
        how += f" as in FedGen's experiments with ratio {partition.ratio:g}"
    if partition.scheme == "pathological":
        how = f"{partition.classes_per_client} classes each"
    elif partition.scheme == "quantity":
        how = f"sizes by Dirichlet({partition.alpha:g})"
    owned = sum(len(indices) for indices in partition.clients.values())
    test = partition.test
    tested = "" if test is None else (
        f"; {sum(map(len, test.clients.values()))} of {test.dataset.size} test images, "
        f"{test.scheme.replace('_', ' ')}"
    )  # fmt: skip
    return Text(
        f"{owned} of {partition.dataset.size} images of {partition.dataset.name} over {len(partition.clients)} clients, "
        f"{how}, seed {partition.seed}, at least {partition.min_size} each{tested}"
    )
