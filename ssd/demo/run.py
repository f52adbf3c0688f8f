"""The demo from beginning to end."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from ssd.data.partition import partition as partitions
from ssd.demo import closing
from ssd.demo.contest import Contest
from ssd.demo.live import display_for
from ssd.demo.place import claimed, drop_state
from ssd.demo.records import Outcome
from ssd.demo.settings import ALPHA, CLIENTS, CONTENDERS, DATASET, IMAGE, DemoSettings, skew
from ssd.demo.summary import summary
from ssd.federation.children import Children, interruptible
from ssd.federation.hosting import deal
from ssd.federation.provenance import processor_seconds
from ssd.federation.words import duration
from ssd.files import write_atomically

Json = Any


def run_demo(settings: DemoSettings, console: Console) -> Mapping[str, Json]:
    """Run both federations, print the closing table, write everything into `settings.out`.

    Returns:
        The document written to `summary.json`.

    Raises:
        DaemonFailed: a process of the demo failed; everything has been stopped.
        PlaceRefused: the output folder cannot be used.
        KeyboardInterrupt: interrupted; everything has been stopped.
    """
    started = time.monotonic()
    console.print(f"Starting; everything goes to {settings.out}. Ctrl-C stops it cleanly.", markup=False)
    with claimed(settings.out), interruptible():
        untrained = settings.out / "untrained.safetensors"
        with Children() as children:
            federations = [Contest(settings, each, children) for each in CONTENDERS]
            federations[0].launch()
            # While the coordinator makes version 0, this process imports what it needs.
            from ssd.data.images.builtin import load_builtin
            from ssd.data.images.source import ImageFormat

            images = load_builtin(DATASET, ImageFormat(size=IMAGE["size"], channels=IMAGE["channels"]))
            assert images.train.labels is not None  # a built-in set is labelled
            partition = partitions.dirichlet(
                images.train.labels.tolist(), CLIENTS, ALPHA, settings.seed, dataset=DATASET
            )
            partitions.save(partition, settings.partition)
            sizes = {client: len(indices) for client, indices in partition.clients.items()}
            hosted = deal(sizes, settings.workers)
            display = display_for(console, [each.progress for each in federations], settings.evaluate_every)
            with display:
                display.say(introduction(settings, partition))
                first, second = federations
                outcomes = [
                    first.run(hosted, display.show, trained=second.launch, untrained=untrained),
                    second.run(hosted, display.show),
                ]
                display.say("measuring the encoders ...")
                encoders = closing.encoders_of(untrained, outcomes)
                measured = closing.measure(encoders, images, partition, settings.seed)
                pictures = closing.draw(settings, outcomes, encoders, measured, images)
        document = summary(
            settings,
            outcomes,
            measured,
            partition,
            wall_seconds=time.monotonic() - started,
            processor_seconds=processor_seconds(),
        )
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomically(settings.out / "summary.json", text.encode())
        if not settings.keep:
            drop_state(settings.out)
    console.print()
    console.print(closing.closing_words(settings, measured, outcomes, partition), highlight=False)
    console.print()
    for line in where(settings, outcomes, pictures, document):
        console.print(Text(line), soft_wrap=True)
    return document


def introduction(settings: DemoSettings, partition: partitions.Partition) -> str:
    """What is about to happen."""
    smallest, largest, share = skew(
        partition.histograms, {client: len(indices) for client, indices in partition.clients.items()}
    )
    return (
        f"{partition.dataset.size} digits without their labels, split over {CLIENTS} clients "
        f"({smallest} to {largest} images, {100 * share:.0f} % of one class on average), "
        f"{settings.workers} workers and an evaluator, {settings.rounds} rounds per method, seed {settings.seed}"
        + (
            ""
            if settings.secure_aggregation == "off"
            else f", secure aggregation ({settings.secure_aggregation})"
        )
    )


def where(
    settings: DemoSettings, outcomes: list[Outcome], pictures: tuple[Path, ...], document: Mapping[str, Json]
) -> list[str]:
    """What was written, and what to do with it."""
    encoder = settings.out / outcomes[-1].contender.method / outcomes[-1].encoder.name
    took = (
        f"Took {duration(document['wall_seconds'])} ({document['processor_seconds']:.0f} s of processor time). "
        f"Everything is in {settings.out}: summary.json, {', '.join(path.name for path in pictures)}, and a folder "
        "per federation with its configurations, logs and encoder."
    )
    digests = ", ".join(f"{each.contender.title} {each.model_digest[:16]}" for each in outcomes)
    same = (
        f"Models: {digests}; the same for this seed on any number of workers, on one type of processor."
        if settings.secure_aggregation == "off"
        else f"Models: {digests}; the last digits are each worker's own, which rounds with a secret before it masks."
    )
    return [same, took, f"Next: ssd evaluate {encoder} --data {DATASET} --partition {settings.partition}"]
