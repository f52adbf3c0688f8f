"""Which images of one data set belong to which client.

A partition is drawn once, saved as JSON that a person can read, and loaded by everything that trains or
evaluates. It is a pure function of (labels, number of clients, scheme, seed): all randomness comes from
`RandomStream`, never from a library's generator, so the same call gives the same file on any machine.

A file carries the data set's name, size and a digest of its labels in order; loading it for another data set
is refused, because the indices would silently mean other images. It may also say which images of the set's own test
split each client is measured on (`ssd.data.partition.held_out`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ssd.data.images.errors import DataError, unknown_client
from ssd.data.images.identity import DatasetIdentity
from ssd.data.partition.portion import Portion
from ssd.files import write_atomically
from ssd.random_stream import RandomStream

FORMAT = "ssd-partition"
VERSION = 2
Json = Any


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """Which images of the test split each client is measured on: disjoint, sorted, perhaps none."""

    dataset: DatasetIdentity
    """Of the test split."""
    scheme: str
    """`proportional` or `owned_classes`; see `ssd.data.partition.held_out`."""
    clients: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """Disjoint, sorted image indices per client id, and how they were drawn."""

    dataset: DatasetIdentity
    """Of the training split."""
    scheme: str
    """`dirichlet`, `iid`, `fedgen`, `pathological` or `quantity`."""
    seed: int
    alpha: float | None
    """The Dirichlet concentration; None for `iid` and `pathological`."""
    min_size: int
    clients: Mapping[str, tuple[int, ...]]
    histograms: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """Images per label and client; empty for a set without labels."""
    portion: Portion | None = None
    """Which part of the training images was dealt out; None: all (for `fedgen`: what its ratio leaves)."""
    ratio: float | None = None
    """The share of the training images that `fedgen` deals out at most."""
    test: HeldOut | None = None
    classes_per_client: int | None = None
    """For `pathological`."""

    def indices(self, client_id: str) -> tuple[int, ...]:
        """The sorted indices of one client; `DataError` (with the nearest name) for an unknown one."""
        try:
            return self.clients[client_id]
        except KeyError:
            raise unknown_client(client_id, self.clients, f"the partition of {self.dataset.name}") from None


def client_ids(count: int) -> tuple[str, ...]:
    """`client-000`, `client-001`, ...; wider numbers from 1,001 clients on, so that they sort by number."""
    width = max(3, len(str(count - 1)))
    return tuple(f"client-{number:0{width}d}" for number in range(count))


def iid(
    size: int,
    clients: int,
    seed: int,
    *,
    labels: Sequence[int] | None = None,
    dataset: str = "unnamed",
    portion: Portion | None = None,
) -> Partition:
    """Deal `size` images (or a portion of them) out at random: client sizes differ by at most one."""
    if labels is not None and len(labels) != size:
        raise DataError(f"{len(labels)} labels for {size} images")
    dealt = list(range(size)) if portion is None else portion.choose(size, labels, seed)
    check_counts(len(dealt), clients, min_size=1)
    order = [dealt[position] for position in RandomStream("partition-iid", seed).permutation(len(dealt))]
    shares = [order[start::clients] for start in range(clients)]
    identity = (
        DatasetIdentity(name=dataset, size=size, labels_digest="")
        if labels is None
        else DatasetIdentity.of(dataset, labels)
    )
    return assemble(identity, "iid", seed, shares, labels, min_size=1, portion=portion)


def dealt_again(partition: Partition, clients: int, seed: int) -> Partition:
    """The same images, test images too, dealt out at random to `clients` clients: their sizes differ by at most one.

    What a federation makes of its images when nobody's differ from anybody else's. The classes are not counted again.

    Raises:
        DataError: there are fewer images than clients.
    """
    owned = sorted(index for indices in partition.clients.values() for index in indices)
    check_counts(len(owned), clients, min_size=1)

    def shares(indices: Sequence[int], purpose: str) -> list[list[int]]:
        order = RandomStream(purpose, seed).permutation(len(indices))
        return [[indices[position] for position in order[start::clients]] for start in range(clients)]

    made = assemble(
        partition.dataset, "iid", seed, shares(owned, "partition-again"), None,
        min_size=1, portion=partition.portion, ratio=partition.ratio,
    )  # fmt: skip
    if partition.test is None:
        return made
    held = sorted(index for indices in partition.test.clients.values() for index in indices)
    test = {
        name: tuple(sorted(share))
        for name, share in zip(made.clients, shares(held, "partition-test-again"), strict=True)
    }
    return replace(made, test=replace(partition.test, clients=test))


def dirichlet(
    labels: Sequence[int],
    clients: int,
    alpha: float,
    seed: int,
    *,
    min_size: int = 10,
    dataset: str = "unnamed",
    portion: Portion | None = None,
) -> Partition:
    """Label skew: for each class the shares of the clients are one draw from Dirichlet(alpha, ..., alpha).

    The usual protocol of the field (arXiv 2508.01251 §4 takes alpha 0.1 and no minimum size). Clients left with
    fewer than `min_size` images are then filled up, one image at a time, from whoever holds most images (the
    lowest number on a tie), taking from that client's most frequent class: few images move, the skew stays,
    and unlike drawing again it always ends. `min_size=0` leaves the draw as it is.
    """
    if not alpha > 0:
        raise DataError(f"the Dirichlet concentration must be positive, not {alpha}")
    truth = np.asarray(labels, dtype=np.int64)
    dealt = np.arange(len(truth)) if portion is None else np.array(portion.choose(len(truth), labels, seed))
    check_counts(len(dealt), clients, min_size)
    shares: list[list[int]] = [[] for _ in range(clients)]
    for label in np.unique(truth[dealt]).tolist():
        members = dealt[truth[dealt] == label]
        order = RandomStream("partition-order", seed, label).permutation(len(members))
        shuffled = [int(members[position]) for position in order]
        places = cuts(len(members), clients, alpha, RandomStream("partition-shares", seed, label))
        for share, (start, stop) in zip(shares, pairwise(places), strict=True):
            share.extend(shuffled[start:stop])
    fill_up(shares, truth, min_size)
    return assemble(
        DatasetIdentity.of(dataset, labels), "dirichlet", seed, shares, labels,
        alpha=float(alpha), min_size=min_size, portion=portion,
    )  # fmt: skip


def assemble(
    dataset: DatasetIdentity,
    scheme: str,
    seed: int,
    shares: Sequence[Sequence[int]],
    labels: Sequence[int] | None,
    *,
    alpha: float | None = None,
    min_size: int,
    portion: Portion | None = None,
    ratio: float | None = None,
    classes_per_client: int | None = None,
) -> Partition:
    """The partition whose clients, in order, hold `shares` (indices in any order)."""
    clients = {
        name: tuple(sorted(share)) for name, share in zip(client_ids(len(shares)), shares, strict=True)
    }
    histograms = (
        {} if labels is None else {name: _histogram(labels, owned) for name, owned in clients.items()}
    )
    return Partition(
        dataset=dataset, scheme=scheme, seed=seed, alpha=alpha, min_size=min_size,
        clients=clients, histograms=histograms, portion=portion, ratio=ratio, classes_per_client=classes_per_client,
    )  # fmt: skip


def save(partition: Partition, path: Path) -> None:
    """Write the partition as JSON, one line per client, atomically."""
    test, portion = partition.test, partition.portion
    head = {
        "format": FORMAT,
        "version": VERSION,
        "dataset": partition.dataset.to_json(),
        "scheme": partition.scheme,
        "seed": partition.seed,
        "alpha": partition.alpha,
        "min_size": partition.min_size,
        "portion": None if portion is None else portion.to_json(),
        "ratio": partition.ratio,
        **(
            {}
            if partition.classes_per_client is None
            else {"classes_per_client": partition.classes_per_client}
        ),
        "test": None if test is None else {"dataset": test.dataset.to_json(), "scheme": test.scheme},
    }
    rows = []
    for client, indices in partition.clients.items():
        histogram = {str(label): count for label, count in partition.histograms.get(client, {}).items()}
        row = {"size": len(indices), "labels": histogram, "indices": list(indices)}
        if test is not None:
            row["test"] = list(test.clients[client])
        rows.append(f"    {json.dumps(client)}: {json.dumps(row)}")
    text = json.dumps(head, indent=2)[:-2] + ',\n  "clients": {\n' + ",\n".join(rows) + "\n  }\n}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())


def load(
    path: Path, dataset: DatasetIdentity | None = None, test: DatasetIdentity | None = None
) -> Partition:
    """Read and check a partition file.

    Args:
        path: what `save` wrote.
        dataset: the training split the indices will be used on; None skips only that comparison.
        test: the test split that the clients' test images are taken from, likewise.

    Raises:
        DataError: no such file, not a partition, damaged (indices out of range, unsorted, or owned by two
            clients), or made for another data set.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"there is no partition file at {path}; make one with `ssd partition make`") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"cannot read the partition file {path}: {error}") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DataError(f"{path} is not a partition file (no 'format': '{FORMAT}')")
    if value.get("version") != VERSION:
        raise DataError(
            f"{path} has format version {value.get('version')}; this program reads version {VERSION}: "
            "make it anew with `ssd partition make`"
        )
    try:
        partition = _from_json(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"the partition file {path} is damaged: {error!r}") from error
    problem = problem_of(partition)
    if problem:
        raise DataError(f"the partition file {path} is damaged: {problem}")
    made_for = {dataset: partition.dataset}
    if partition.test is not None:
        made_for[test] = partition.test.dataset
    for given, own in made_for.items():
        if given is not None and given != own:
            raise DataError(
                f"{path} was made for {own}, but the images are {given}; "
                "make a new partition for this data set"
            )
    return partition


def check_counts(size: int, clients: int, min_size: int) -> None:
    """Raise DataError unless so many images are enough."""
    if clients < 1:
        raise DataError(f"a partition needs at least one client, not {clients}")
    if min_size < 0 or size < max(1, min_size) * clients:
        raise DataError(f"{size} images cannot give {clients} clients at least {max(1, min_size)} each")


def cuts(count: int, clients: int, alpha: float, stream: RandomStream) -> list[int]:
    """Where to cut `count` images into one Dirichlet draw: clients + 1 ascending positions."""
    inner = [round(count * part) for part in accumulate(stream.dirichlet(alpha, clients))]
    return [0, *inner[:-1], count]


def fill_up(shares: list[list[int]], labels: np.ndarray[Any, np.dtype[np.int64]], min_size: int) -> None:
    """Move single images from the largest share to those below `min_size`, in place."""
    for share in shares:
        while len(share) < min_size:
            donor = max(shares, key=len)
            owned = labels[donor]
            frequent = int(np.argmax(np.bincount(owned)))
            position = len(owned) - 1 - int(np.argmax(owned[::-1] == frequent))
            share.append(donor.pop(position))


def _histogram(labels: Sequence[int], indices: Sequence[int]) -> dict[int, int]:
    values, counts = np.unique(np.asarray(labels)[list(indices)], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _from_json(value: Mapping[str, Json]) -> Partition:
    clients: dict[str, tuple[int, ...]] = {}
    histograms: dict[str, dict[int, int]] = {}
    for client, row in value["clients"].items():
        clients[client] = _indices(row["indices"], client)
        if row["size"] != len(row["indices"]):
            raise ValueError(f"{client!r} has not {row['size']} indices")
        if row["labels"]:
            histograms[client] = {int(label): int(count) for label, count in row["labels"].items()}
    portion, test = value["portion"], value["test"]
    return Partition(
        dataset=DatasetIdentity.from_json(value["dataset"]),
        scheme=str(value["scheme"]),
        seed=int(value["seed"]),
        alpha=None if value["alpha"] is None else float(value["alpha"]),
        min_size=int(value["min_size"]),
        clients=clients,
        histograms=histograms,
        portion=None if portion is None else Portion(**portion),
        ratio=None if value["ratio"] is None else float(value["ratio"]),
        classes_per_client=None if "classes_per_client" not in value else int(value["classes_per_client"]),
        test=None
        if test is None
        else HeldOut(
            dataset=DatasetIdentity.from_json(test["dataset"]),
            scheme=str(test["scheme"]),
            clients={client: _indices(row["test"], client) for client, row in value["clients"].items()},
        ),
    )


def _indices(value: Sequence[Json], client: str) -> tuple[int, ...]:
    if any(type(index) is not int for index in value):
        raise ValueError(f"the indices of {client!r} are not whole numbers")
    return tuple(value)


def problem_of(partition: Partition) -> str | None:
    """Names what is wrong with a partition, or returns None.

    Wrong are a partition without clients, indices that are out of range, unsorted or owned twice, and counts that do
    not add up.
    """
    if not partition.clients:
        return "it names no clients"
    problem = _indices_problem(partition.clients, partition.dataset.size, "image")
    if problem:
        return problem
    for client, indices in partition.clients.items():
        histogram = partition.histograms.get(client)
        if histogram is not None and sum(histogram.values()) != len(indices):
            return f"the label counts of client {client!r} do not add up to its {len(indices)} images"
    if partition.test is not None:
        return _indices_problem(partition.test.clients, partition.test.dataset.size, "test image")
    return None


def _indices_problem(clients: Mapping[str, tuple[int, ...]], size: int, what: str) -> str | None:
    owner = np.full(size, -1, dtype=np.int64)
    names = list(clients)
    for number, (client, indices) in enumerate(clients.items()):
        if indices and not 0 <= min(indices) <= max(indices) < size:
            return f"client {client!r} owns {what}s outside 0..{size - 1}"
        array = np.asarray(indices, dtype=np.int64)
        if (np.diff(array) <= 0).any():
            return f"the {what} indices of client {client!r} are not strictly ascending"
        taken = owner[array]
        if (taken >= 0).any():
            where = int(array[np.argmax(taken >= 0)])
            return f"{what} {where} belongs to both {names[owner[where]]!r} and {client!r}"
        owner[array] = number
    return None
