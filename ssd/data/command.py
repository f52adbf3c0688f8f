"""The commands `ssd partition make` and `ssd partition show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ssd.daemon.cli.terminal import CODES, KINDS, console, data_options
from ssd.daemon.printable import json_text

if TYPE_CHECKING:
    from ssd.data.partition.partition import Partition


@click.group()
def partition() -> None:
    """Which images of a data set are which client's."""


@partition.command("make", epilog=CODES)
@click.option("--data", "kind", type=click.Choice(KINDS), required=True, help="The data set.")
@data_options
@click.option("--clients", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--scheme", type=click.Choice(["dirichlet", "iid", "fedgen", "pathological", "quantity"]), default="dirichlet",
              show_default=True, help="Label skew; at random; label skew as in FedGen's experiments; a few classes each; "
              "unequal numbers of images.")  # fmt: skip
@click.option("--alpha", type=click.FloatRange(min=0, min_open=True), default=0.1, show_default=True,
              help="Dirichlet concentration: the smaller, the fewer classes per client.")  # fmt: skip
@click.option("--classes", "classes_per_client", type=click.IntRange(min=1), default=2, show_default=True,
              help="For pathological: classes of each client.")  # fmt: skip
@click.option("--min-size", type=click.IntRange(min=0), default=10, show_default=True,
              help="Fewest images of a client; missing ones come from the largest (fedgen: draws again).")  # fmt: skip
@click.option("--images", type=click.IntRange(min=1), help="Deal out only so many training images.")
@click.option("--take", type=click.Choice(["sample", "first"]), default="sample", show_default=True,
              help="Which ones: a sample with the classes in proportion, or the first.")  # fmt: skip
@click.option("--ratio", type=click.FloatRange(min=0, min_open=True, max=1), default=0.5, show_default=True,
              help="For fedgen: at most this share of the images.")  # fmt: skip
@click.option("--test", "held_out", type=click.Choice(["none", "proportional", "owned-classes"]), default="none",
              show_default=True, help="Also share out test images: by what clients hold of a class, or equally "
              "among those who hold any.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The new file.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def partition_make(
    kind: str,
    root: Path | None,
    download: bool,
    clients: int,
    scheme: str,
    alpha: float,
    classes_per_client: int,
    min_size: int,
    images: int | None,
    take: str,
    ratio: float,
    held_out: str,
    seed: int,
    out: Path,
    force: bool,
) -> None:
    """Split a data set among clients and write who has what."""
    from ssd.data.images.builtin import load_builtin
    from ssd.data.images.source import ImageFormat
    from ssd.data.partition import partition as partitions
    from ssd.data.partition import skews
    from ssd.data.partition.fedgen_split import fedgen
    from ssd.data.partition.held_out import with_test
    from ssd.data.partition.portion import Portion

    if out.exists() and not force:
        raise click.UsageError(f"{out} exists: choose another name or add --force")
    if scheme == "fedgen" and images is not None:
        raise click.UsageError(
            "--scheme fedgen says by --ratio how many images it deals out, not by --images"
        )
    # Only the labels matter; the smallest format is the cheapest to bring them in.
    whole = load_builtin(kind, ImageFormat(size=8, channels=1), root, download)
    assert whole.train.labels is not None  # a built-in set is labelled
    assert whole.test.labels is not None
    labels = whole.train.labels.tolist()
    portion = None if images is None else Portion(images=images, take=take)
    if scheme == "iid":
        made = partitions.iid(len(labels), clients, seed, labels=labels, dataset=kind, portion=portion)
    elif scheme == "pathological":
        made = skews.pathological(labels, clients, classes_per_client, seed, dataset=kind, portion=portion)
    elif scheme == "quantity":
        made = skews.quantity(labels, clients, alpha, seed, min_size=min_size, dataset=kind, portion=portion)
    elif scheme == "fedgen":
        made = fedgen(labels, clients, alpha, seed, ratio=ratio, min_size=min_size, dataset=kind)
    else:
        made = partitions.dirichlet(
            labels, clients, alpha, seed, min_size=min_size, dataset=kind, portion=portion
        )
    if held_out != "none":
        scheme_words = held_out.replace("-", "_")
        made = with_test(made, scheme_words, whole.test.labels.tolist(), whole.test_identity.name)
    partitions.save(made, out)
    _show_partition(made)
    click.echo(f"-> {out}")


@partition.command("show", epilog=CODES)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def partition_show(file: Path, form: str) -> None:
    """Check a partition file and print who has how many images of which class."""
    from ssd.data.partition import partition as partitions

    found = partitions.load(file)
    if form == "table":
        _show_partition(found)
        return
    clients = {
        client: {
            "size": len(indices),
            "labels": dict(found.histograms.get(client, {})),
            "test": 0 if found.test is None else len(found.test.clients[client]),
        }
        for client, indices in found.clients.items()
    }
    head = {
        "dataset": found.dataset.name,
        "scheme": found.scheme,
        "alpha": found.alpha,
        "seed": found.seed,
        "portion": None if found.portion is None else found.portion.to_json(),
        "ratio": found.ratio,
        "classes_per_client": found.classes_per_client,
        "test": None if found.test is None else found.test.scheme,
    }
    click.echo(json_text({**head, "min_size": found.min_size, "clients": clients}))


def _show_partition(found: Partition) -> None:
    from ssd.data.partition.table import describe_split, split_table

    screen = console()
    screen.print(split_table(found))
    screen.print(describe_split(found))
