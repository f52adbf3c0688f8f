"""`ssd`: try a federation, split a data set among clients, measure an encoder.

Its exit codes are `ssd.daemon.terminal.EXIT_CODES`. torch is imported only by a command that needs it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssd.daemon.completion import completion_command
from ssd.daemon.help_text import add_examples
from ssd.daemon.terminal import (
    CODES,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_REFUSED,
    EXIT_STORAGE,
    EXIT_USAGE,
    KINDS,
    complain,
    console,
    data_options,
)
from ssd.data.images.errors import DataError
from ssd.evaluation.command import evaluate
from ssd.examples import EXAMPLES
from ssd.experiment.command import experiment, report
from ssd.export.command import export

if TYPE_CHECKING:
    from ssd.data.partition.partition import Partition

Json = Any

_EXAMPLES = """\b
Examples:
  ssd demo                                     a whole federation on this machine, about 2 minutes
  ssd demo --rounds 5 --out runs/quick         a shorter one, elsewhere
  ssd partition make --data digits --clients 10 --alpha 0.1 --out digits.json
  ssd partition show digits.json
  ssd evaluate runs/demo/ssd/encoder.safetensors --data digits
  ssd evaluate encoder.safetensors --data folder --probe photographs/probe --format json
  ssd export runs/demo/ssd/encoder.safetensors --out home

"""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script; ends the process with a documented exit code."""
    sys.exit(_guarded(lambda: cli.main(arguments, prog_name="ssd", standalone_mode=False)))


def _guarded(run: Callable[[], Json]) -> int:
    try:
        code = run()
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except DataError as error:
        complain(str(error))
        return EXIT_USAGE
    except BrokenPipeError:
        # The reader (head, less) has seen enough; keep the interpreter from complaining while it closes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return EXIT_STORAGE
    return code if isinstance(code, int) else EXIT_OK


@click.group(epilog=_EXAMPLES + CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ssd-federated", message="%(prog)s %(version)s")
def cli() -> None:
    """Soft separation and distillation: one good image encoder out of data that stays where it is."""


@cli.command(epilog=CODES)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/demo"), show_default=True,
              help="Where results, logs and configurations go; an earlier demo's are replaced.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(min=1), default=20, show_default=True, help="Per method.")
@click.option("--seed", type=click.IntRange(min=0, max=2**31 - 1), default=1, show_default=True,
              help="Of the split, weights, batches, views and labels.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 10), default=4, show_default=True,
              help="Processes that train; one more evaluates.")  # fmt: skip
@click.option("--secure-aggregation", type=click.Choice(["off", "passive", "active"]), default="off",
              show_default=True, help="Mask every worker's updates: the coordinator sees only sums.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep the daemons' state directories too.")
def demo(out: Path, rounds: int, seed: int, workers: int, secure_aggregation: str, keep: bool) -> int:
    """Run a whole federation on this machine, twice: FedAlignUniform, then SSD.

    Ten clients hold a Dirichlet(0.1) split of scikit-learn's digits; a coordinator and workers train one encoder
    over gRPC, without labels. Prints what the encoders are worth beside an untrained one.
    """
    from ssd.demo.place import PlaceRefused
    from ssd.demo.run import run_demo
    from ssd.demo.settings import DemoSettings
    from ssd.federation.failure import describe
    from ssd.federation.records import DaemonFailed

    try:
        settings = DemoSettings(
            out=out,
            rounds=rounds,
            seed=seed,
            workers=workers,
            secure_aggregation=secure_aggregation,
            keep=keep,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        run_demo(settings, console())
    except PlaceRefused as refused:
        complain(str(refused))
        return EXIT_REFUSED
    except DaemonFailed as failed:
        complain("\n".join(describe(failed)))
        return EXIT_REFUSED
    return EXIT_OK


@cli.group()
def partition() -> None:
    """Which images of a data set are which client's."""


@partition.command("make", epilog=CODES)
@click.option("--data", "kind", type=click.Choice(KINDS), required=True, help="The data set.")
@data_options
@click.option("--clients", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--scheme", type=click.Choice(["dirichlet", "iid", "fedgen"]), default="dirichlet", show_default=True,
              help="Label skew; at random; or label skew as in FedGen's experiments.")  # fmt: skip
@click.option("--alpha", type=click.FloatRange(min=0, min_open=True), default=0.1, show_default=True,
              help="Dirichlet concentration: the smaller, the fewer classes per client.")  # fmt: skip
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
        "test": None if found.test is None else found.test.scheme,
    }
    click.echo(json.dumps({**head, "min_size": found.min_size, "clients": clients}))


def _show_partition(found: Partition) -> None:
    from ssd.data.partition.table import describe_split, split_table

    screen = console()
    screen.print(split_table(found))
    screen.print(describe_split(found))


cli.add_command(evaluate)
cli.add_command(export)
cli.add_command(experiment)
cli.add_command(report)
cli.add_command(completion_command("ssd"))


add_examples(cli, "ssd", EXAMPLES, CODES)


if __name__ == "__main__":
    main()
