"""How exact the federated representation quality is: its sums against pooled features, as the table of
docs/representation-quality.md.

    python tests/benchmarks/quality_accuracy.py [--images 512] [--seeds 2]
    python tests/benchmarks/quality_accuracy.py --hard    (where frequencies err most; a minute)

Ten clients, each a Gaussian cloud around a mean of its own. The spectrum of a cloud decays like i^-decay (0: an even
sphere, 1: most directions hardly used), and `cone` moves all features to one side; together they set the uniformity. The
norms of features vary by 30 %. An error is the largest over the seeds of the frequencies, on all ten clients and on
three of them. Takes minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ssd.evaluation.federated_quality import sums_of
from ssd.evaluation.quality import effective_rank, uniformity
from ssd.updates.declaration import QualityDeclaration
from ssd.updates.quality_sums import artefacts, frequencies_name, name_of, read

CLIENTS, PARTIAL = 10, 3
SETTINGS = ((0.0, 0.0), (0.5, 0.0), (0.5, 0.6), (1.0, 0.0), (1.0, 0.8))
MEASURES = ("uniformity_global", "uniformity_inter", "effective_rank")


def clouds(dimension: int, images: int, decay: float, cone: float) -> list[torch.Tensor]:
    generator = np.random.default_rng((dimension, int(10 * decay), int(10 * cone)))
    spectrum = np.arange(1, dimension + 1) ** -decay
    spectrum /= np.linalg.norm(spectrum)
    side = generator.standard_normal(dimension)
    side *= cone / np.linalg.norm(side)
    found = []
    for _ in range(CLIENTS):
        mean = 0.5 * generator.standard_normal(dimension) * spectrum + side
        cloud = mean + generator.standard_normal((images, dimension)) * spectrum
        cloud *= (
            7.0
            * np.exp(0.3 * generator.standard_normal((images, 1)))
            / np.linalg.norm(cloud, axis=1, keepdims=True)
        )
        found.append(torch.tensor(cloud))
    return found


def hard(dimension: int, images: int) -> dict[str, list[torch.Tensor]]:
    """Clients that the estimate between clients is worst for: few directions each, or few images."""
    generator = np.random.default_rng(dimension)
    axes = np.linalg.qr(generator.standard_normal((dimension, dimension)))[0]

    def around(centres: np.ndarray, noise: float, count: int = images) -> torch.Tensor:
        chosen = centres[np.arange(count) % len(centres)]
        return torch.tensor(
            chosen + noise * generator.standard_normal((count, dimension)) / np.sqrt(dimension)
        )

    numbers = range(CLIENTS)
    return {
        "a direction of its own each": [around(axes[[k]], 0.5) for k in numbers],
        "two tight clusters each": [around(axes[[2 * k, 2 * k + 1]], 0.1) for k in numbers],
        "one point each": [around(axes[[k]], 0.0) for k in numbers],
        "shared clusters": [around(axes[:4], 0.3) for _ in numbers],
        "four images each": [around(generator.standard_normal((4, dimension)), 0.0, 4) for _ in numbers],
        "one of 512 images, the others of 8": [
            around(
                generator.standard_normal((images if k == 0 else 8, dimension)), 0.0, images if k == 0 else 8
            )
            for k in numbers
        ],
    }


def exact(clients: list[torch.Tensor]) -> dict[str, float]:
    owners = [number for number, cloud in enumerate(clients) for _ in range(len(cloud))]
    pooled = torch.cat(clients)
    spread = uniformity(pooled, owners)
    return {
        "uniformity_global": spread.overall,
        "uniformity_inter": spread.inter,
        "effective_rank": effective_rank(pooled).value,
    }


def estimates(
    clients: list[torch.Tensor], quality: QualityDeclaration, made: dict[str, np.ndarray], plain: bool
) -> list[dict[str, float]]:
    """What the sums say of all clients and of some; with `plain` without control variates."""
    frequencies = torch.tensor(made[frequencies_name("h")])
    sums = [sums_of(quality, "h", cloud, torch.stack([cloud, cloud], 1), frequencies) for cloud in clients]
    found = []
    for number in (CLIENTS, PARTIAL):
        total = {name: sum(each[name] for each in sums[:number]) for name in sums[0]}
        values = read(quality, total, made, CLIENTS)
        told = {name: values[f"h_{name}"] for name in MEASURES}
        if plain:
            told |= without_controls(total, quality.frequencies)
        found.append(told)
    return found


def without_controls(total: dict[str, np.ndarray], count: int) -> dict[str, float]:
    """Uniformity from the means over the frequencies as they are."""
    images, squared = total[name_of("h", "images")], total[name_of("h", "images_squared")]
    between = (
        np.square(total[name_of("h", "kernel")]).sum() / count - total[name_of("h", "kernel_squared")].mean()
    )
    within = total[name_of("h", "kernel_pairs")]
    return {
        "uniformity_global": -np.log((within + between) / (images**2 - images)),
        "uniformity_inter": -np.log(between / (images**2 - squared)),
    }


def gaussian(quality: QualityDeclaration, seed: int) -> dict[str, np.ndarray]:
    """Independent Gaussian frequencies, for comparison."""
    (dimension,) = quality.features.values()
    shape = (quality.frequencies, dimension)
    drawn = np.random.default_rng(9000 + seed).standard_normal(shape) * np.sqrt(2.0 * quality.t)
    return {frequencies_name("h"): drawn.astype(np.float32)}


def hardest(chosen: argparse.Namespace) -> None:
    print(
        "| d | clients | uniformity between clients | largest error, all ten | largest error, three of them |"
    )
    print("|---|---|---|---|---|")
    for dimension in chosen.dimensions:
        quality = QualityDeclaration(
            features={"h": dimension}, frequencies=4096, images=chosen.images, moments=True
        )
        for name, clients in hard(dimension, chosen.images).items():
            truth = [exact(clients[:number])["uniformity_inter"] for number in (CLIENTS, PARTIAL)]
            errors = [
                [abs(told["uniformity_inter"] - true) for told, true in zip(found, truth, strict=True)]
                for seed in range(chosen.seeds)
                for found in [estimates(clients, quality, artefacts(quality, seed), plain=False)]
            ]
            worst = np.max(errors, axis=0)
            print(f"| {dimension} | {name} | {truth[0]:.3f} | {worst[0]:.4f} | {worst[1]:.4f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--hard", action="store_true")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[128, 512])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.hard:
        hardest(chosen)
        return
    columns = ((4096, True), (1024, False), (2048, False), (4096, False))
    names = [f"{count} {'Gaussian, plain' if plain else 'as used'}" for count, plain in columns]
    print(
        "| d | decay, cone | uniformity: global, inter | effective rank |",
        " | ".join(names),
        "| rank error |",
    )
    print("|" + "---|" * (len(names) + 5))
    for dimension in chosen.dimensions:
        for decay, cone in SETTINGS:
            clients = clouds(dimension, chosen.images, decay, cone)
            truth = [exact(clients[:number]) for number in (CLIENTS, PARTIAL)]
            cells, ranks = [], [0.0]
            for count, plain in columns:
                quality = QualityDeclaration(
                    features={"h": dimension}, frequencies=count, images=chosen.images, moments=not plain
                )
                worst = dict.fromkeys(MEASURES, 0.0)
                for seed in range(chosen.seeds):
                    made = gaussian(quality, seed) if plain else artefacts(quality, seed)
                    for told, true in zip(estimates(clients, quality, made, plain), truth, strict=True):
                        for name in MEASURES:
                            worst[name] = max(worst[name], abs(told[name] - true[name]))
                        if not plain:
                            ranks.append(abs(told["effective_rank"] / true["effective_rank"] - 1.0))
                cells.append(f"{worst['uniformity_global']:.4f}, {worst['uniformity_inter']:.4f}")
            whole = truth[0]
            print(
                f"| {dimension} | {decay}, {cone} | {whole['uniformity_global']:.3f}, {whole['uniformity_inter']:.3f} "
                f"| {whole['effective_rank']:.1f} |",
                " | ".join(cells),
                f"| {max(ranks):.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
