"""Who hosts whom."""

from __future__ import annotations

from collections.abc import Mapping


def deal(sizes: Mapping[str, int], workers: int) -> list[list[str]]:
    """Which clients each worker hosts, such that no worker has much more to do than another.

    The largest client first, each to the worker with the fewest images so far (the first on a tie); a worker's
    clients are sorted. With at least as many clients as workers nobody stays empty.

    Args:
        sizes: images per client.
        workers: how many.
    """
    hosted: list[list[str]] = [[] for _ in range(workers)]
    images = [0] * workers
    for client in sorted(sizes, key=lambda name: (-sizes[name], name)):
        lightest = min(range(workers), key=lambda number: (images[number], len(hosted[number]), number))
        hosted[lightest].append(client)
        images[lightest] += sizes[client]
    return [sorted(clients) for clients in hosted]
