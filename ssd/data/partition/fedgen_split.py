"""The label-skew split of FedGen's experiments (Zhu, Hong and Zhou, "Data-Free Knowledge Distillation for
Heterogeneous Federated Learning", ICML 2021).

The paper says "Dir(alpha)" and "at most 50 % of the training data"; what that means is in its official code (commit
d767e34, `data/Mnist/generate_niid_dirichlet.py`), and this is that procedure:

- a client's cap is ratio x images / clients (MNIST, ratio 0.5, 20 clients: 1,500);
- the classes are visited in random order. Of each, a random min(cap, ratio x images of the class) images are dealt
  out, so that ratio 0.5 of MNIST means 15,000 images, a quarter of the set;
- their shares are one draw from Dirichlet(alpha, ..., alpha) over the clients, with the shares of those who hold
  the cap already set to zero and the others scaled up to one; the cuts round down;
- all of it is drawn again until the poorest client holds `min_size` images (10 there).

Ours is the random stream: the official draw comes from a library's generator and cannot be had by formula. A draw
whose remaining shares are all too small for a float, where the official code would divide by zero, counts as a failed
try. A ratio of 1 deals out every image, as there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from ssd.data.images.errors import DataError
from ssd.data.images.identity import DatasetIdentity
from ssd.data.partition.partition import Partition, assemble
from ssd.random_stream import RandomStream

_MOST_TRIES = 10_000


def fedgen(
    labels: Sequence[int],
    clients: int,
    alpha: float,
    seed: int,
    *,
    ratio: float = 0.5,
    min_size: int = 10,
    dataset: str = "unnamed",
) -> Partition:
    """The split described above, a pure function of its arguments.

    Raises:
        DataError: impossible arguments, or no draw gave every client `min_size` images.
    """
    if not (alpha > 0 and math.isfinite(alpha)):
        raise DataError(f"the Dirichlet concentration must be positive, not {alpha}")
    if not 0 < ratio <= 1:
        raise DataError(f"the ratio of images dealt out must be above 0 and at most 1, not {ratio}")
    if clients < 1:
        raise DataError(f"a partition needs at least one client, not {clients}")
    truth = np.asarray(labels, dtype=np.int64)
    classes = np.unique(truth).tolist()
    members = {label: np.flatnonzero(truth == label).tolist() for label in classes}
    cap = ratio * len(truth) / clients
    taken = {label: _taken(len(images), ratio, cap) for label, images in members.items()}
    if sum(taken.values()) < clients * max(1, min_size):
        raise DataError(
            f"{sum(taken.values())} images cannot give {clients} clients at least {max(1, min_size)} each"
        )
    visits = [
        classes[position] for position in RandomStream("fedgen-classes", seed).permutation(len(classes))
    ]
    for attempt in range(_MOST_TRIES):
        sizes = _sizes(visits, taken, clients, alpha, cap, seed, attempt)
        if sizes is None or min(map(sum, zip(*sizes.values(), strict=True))) < min_size:
            continue
        shares: list[list[int]] = [[] for _ in range(clients)]
        for label, counts in sizes.items():
            chosen = RandomStream("fedgen-images", seed, attempt, label).sample(members[label], taken[label])
            for share, (start, stop) in zip(shares, pairwise([0, *accumulate(counts)]), strict=True):
                share.extend(chosen[start:stop])
        return assemble(
            DatasetIdentity.of(dataset, labels), "fedgen", seed, shares, labels,
            alpha=float(alpha), min_size=min_size, ratio=float(ratio),
        )  # fmt: skip
    raise DataError(
        f"none of {_MOST_TRIES} draws gave each of {clients} clients {min_size} images; "
        "take a larger alpha, fewer clients or a smaller minimum"
    )


def _taken(images: int, ratio: float, cap: float) -> int:
    """How many images of a class are dealt out."""
    return images if ratio == 1 else int(min(cap, int(ratio * images)))


def _sizes(
    visits: Sequence[int],
    taken: dict[int, int],
    clients: int,
    alpha: float,
    cap: float,
    seed: int,
    attempt: int,
) -> dict[int, list[int]] | None:
    """Images per client of every class; None if nothing is left to share a class out by."""
    held = [0] * clients
    sizes: dict[int, list[int]] = {}
    for label in visits:
        drawn = RandomStream("fedgen-shares", seed, attempt, label).dirichlet(alpha, clients)
        allowed = [share if owned < cap else 0.0 for share, owned in zip(drawn, held, strict=True)]
        total = math.fsum(allowed)
        if not total > 0:
            return None
        inner = [int(taken[label] * upto / total) for upto in accumulate(allowed[:-1])]
        cuts = [0, *(min(cut, taken[label]) for cut in inner), taken[label]]
        sizes[label] = [stop - start for start, stop in pairwise(cuts)]
        held = [owned + more for owned, more in zip(held, sizes[label], strict=True)]
    return sizes
