"""A small declaration with every kind of group and statistic, and updates for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssd.updates.codec import Encoding
from ssd.updates.declaration import Declaration, GroupDeclaration, Reducer, StatisticDeclaration
from ssd.updates.fold import Fold, FoldPlan, encode_update
from ssd.updates.spec import Kind, ParameterSpec

MAX_COHORT, MAX_WEIGHT = 40, 1000


def sample_declaration(
    encoder_size: int = 700, max_abs: float = 8.0, norm_bound: float = 100.0
) -> Declaration:
    spec = ParameterSpec.build(
        [
            ("conv.weight", (encoder_size, 1), "encoder", Kind.PARAMETER),
            ("conv.bias", (3,), "encoder", Kind.PARAMETER),
            ("counts", (2, 2), "sums", Kind.PARAMETER),
            ("norm.mean", (5,), "buffers", Kind.BUFFER),
            ("norm.var", (5,), "buffers", Kind.VARIANCE),
        ]
    )
    groups = (
        GroupDeclaration(
            name="encoder", reducer=Reducer.WEIGHTED_MEAN, max_abs=max_abs, norm_bound=norm_bound
        ),
        GroupDeclaration(name="sums", reducer=Reducer.SUM, max_abs=max_abs, norm_bound=norm_bound),
        GroupDeclaration(
            name="buffers",
            reducer=Reducer.PLAIN_MEAN,
            max_abs=max_abs,
            norm_bound=norm_bound,
            compress=False,
            optimise=False,
        ),
    )
    statistics = (
        StatisticDeclaration(name="loss_sum", max_abs=1e6),
        StatisticDeclaration(name="moments", shape=(2, 3), max_abs=1e3),
    )
    return Declaration(method="sample", version=1, spec=spec, groups=groups, statistics=statistics)


def sample_plan(encoding: Encoding = Encoding.FLOAT32, declaration: Declaration | None = None) -> FoldPlan:
    return FoldPlan.create(declaration or sample_declaration(), encoding, MAX_COHORT, MAX_WEIGHT)


@dataclass(frozen=True)
class SampleUpdate:
    delta: NDArray[np.float32]
    statistics: dict[str, NDArray[np.float64]]
    weight: int
    body: bytes


def sample_update(plan: FoldPlan, seed: int) -> SampleUpdate:
    """Values of magnitudes from 1 down to 1e-6, so that a float sum depends on its order."""
    generator = np.random.default_rng(seed)
    magnitudes = 10.0 ** generator.uniform(-6, 0, plan.size)
    delta = (generator.standard_normal(plan.size) * magnitudes).astype(np.float32)
    statistics = {
        statistic.name: generator.standard_normal(statistic.shape) * 10.0 for statistic in plan.statistics
    }
    weight = int(generator.integers(1, plan.max_client_weight + 1))
    return SampleUpdate(delta, statistics, weight, encode_update(plan, delta, statistics))


def fold_of(plan: FoldPlan, updates: list[SampleUpdate]) -> Fold:
    fold = Fold(plan)
    for update in updates:
        fold.add_update(update.body, update.weight)
    return fold


def opened_bytes(fold: Fold) -> bytes:
    """Everything an opened fold says, as bytes."""
    opened = fold.open()
    parts = [opened.delta.tobytes(), f"{opened.clients} {opened.weight}".encode()]
    parts += [opened.statistics[name].tobytes() for name in sorted(opened.statistics)]
    return b"|".join(parts)
