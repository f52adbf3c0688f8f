"""Rows that stand in every table and need no method: what a figure has to be read against.

==============  ====================================================================================================
`chance`        whoever knows no image
`raw-pixels`    no encoder at all
`untrained`     the base's encoder as the run draws it, before its first round
`even`          the base on the same images, dealt out evenly: the same budget without unevenness
`one-place`     the base on the same images, all with one client: about as many steps, one after the other
==============  ====================================================================================================

The first three are measured without a federation. Everything is measured with the setting's own partition, so uniformity
within and between clients is of the same pairs of images in every row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssd.data.partition import partition as partitions
from ssd.evaluation.measures import CHANCE, PIXELS, UNTRAINED
from ssd.federation.plan import ENCODER

Json = Any
EVEN, ONE_PLACE = "even", "one-place"
REFERENCES = (CHANCE, PIXELS, UNTRAINED, EVEN, ONE_PLACE)
"""Their labels, which no method may have."""
TRAINED = (EVEN, ONE_PLACE)
FLOORS = (CHANCE, PIXELS, UNTRAINED)
STAND_INS = (CHANCE, PIXELS)
"""What `ssd evaluate --as` measures."""


def title(label: str, base: str) -> str:
    """A reference row in words; `base` is the title of the method whose settings it has."""
    return {
        CHANCE: "Chance",
        PIXELS: "Raw pixels",
        UNTRAINED: "Untrained encoder",
        EVEN: f"{base}, images dealt evenly",
        ONE_PLACE: f"{base}, all images in one place",
    }[label]


def reference_config(label: str, config: Mapping[str, Json]) -> dict[str, Json]:
    """A reference row's configuration, made from that of the base's cell.

    In one place a round is one client's. So that it makes about as many steps, the rounds (or, where a client makes a
    fixed number of steps, these) are as many as all clients of the base's rounds make together.
    """
    changes: dict[str, Json] = {"reference": label}
    if label == ONE_PLACE:
        cohort, clients = config["cohort_size"], config["clients"]
        changes |= {"clients": 1, "cohort_size": 1, "owners": clients}
        steps = config["config"].get("local_steps")
        if steps is None:
            changes["rounds"] = max(1, round(config["rounds"] * cohort / clients))
        else:
            changes["config"] = {**config["config"], "local_steps": steps * cohort}
    return {**config, **changes}


def partition_for(label: str, owners: partitions.Partition, seed: int) -> partitions.Partition:
    """Who has which of the images that `owners` shares out."""
    return partitions.dealt_again(owners, 1 if label == ONE_PLACE else len(owners.clients), seed)


def write_untrained(
    config: Mapping[str, Json], method: str, exports: Sequence[str], folder: Path
) -> dict[str, Json]:
    """Write the parts of version 0 as a run of this configuration draws it.

    Args:
        config: the cell's.
        method: a built-in method's name, or its file.
        exports: parts to write.
        folder: where to.

    Returns:
        What a result says of a federation, of one that never trained.

    Raises:
        ValueError: the method cannot be built, or starts from a file that does not fit.
        OSError: nothing can be written there.
    """
    from ssd.export.encoder_file import encoder_metadata, tensors_of_part, write_encoder
    from ssd.method.registry import load
    from ssd.updates.spec import model_digest

    built = load(method, config["config"])
    declaration = built.declare()
    start = config["coordinator"].get("run", {}).get("warm_start")
    vector = built.initial(config["seed"], None if start is None else Path(start))
    digest = model_digest(declaration.spec, vector)
    described = {
        **encoder_metadata(declaration.config),
        "method": declaration.method,
        "version": "0",
        "model_digest": digest,
    }
    for part in exports:
        tensors = built.export(vector) if part == ENCODER else tensors_of_part(declaration.spec, vector, part)
        path = folder / f"{part}.safetensors"
        write_encoder(path, tensors, described, part=None if part == ENCODER else part)
    return {
        "run_id": "",
        "model_version": 0,
        "model_digest": digest,
        "rounds": [],
        "evaluations": {},
        "clients": [],
        "cost": {
            "wall_seconds": 0.0,
            "processor_seconds": 0.0,
            "resumed": False,
            "round_seconds": 0.0,
            "bytes_up": 0,
            "bytes_down": 0,
        },
    }
