"""Which rounds measure representation quality, with which plan, and what is read of their sums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coordinator.ports.figures import Figures, Quality
from coordinator.ports.records import VersionRecord
from coordinator.versions.quality import QualityRounds, newest
from rounds.fold_samples import MAX_COHORT, MAX_WEIGHT, sample_declaration, sample_update
from ssd.updates.codec import Encoding
from ssd.updates.declaration import QualityDeclaration
from ssd.updates.fixed_point import OverflowRisk
from ssd.updates.fold import FoldPlan, UpdateRefused, check_update
from ssd.updates.quality_sums import artefacts, name_of, statistics
from ssd_wire.messages import BlobRef

QUALITY = QualityDeclaration(features={"h": 4, "z": 3}, frequencies=16, images=50, min_images=2)


def rounds(every: int, quality: QualityDeclaration | None = QUALITY) -> QualityRounds:
    plan = FoldPlan.create(
        replace(sample_declaration(), quality=quality), Encoding.FLOAT32, MAX_COHORT, MAX_WEIGHT
    )
    return QualityRounds(plan, Encoding.FLOAT32, every, lambda: artefacts(QUALITY, 1))


def test_rounds_that_start_from_an_evaluated_version_measure_it() -> None:
    assert [number for number in range(1, 12) if rounds(4).measures(number)] == [1, 5, 9]
    assert all(rounds(1).measures(number) for number in range(1, 4))


@pytest.mark.parametrize("never", [rounds(0), rounds(3, None)])
def test_without_evaluations_or_a_declaration_no_round_measures(never: QualityRounds) -> None:
    assert not any(never.measures(number) for number in range(1, 9))
    assert never.largest == never.plan(1)
    assert never.values({"loss_sum": np.zeros(())}, 0) is None


def test_an_update_fits_the_plan_of_its_own_kind_of_round_only() -> None:
    two = rounds(2)
    assert two.plan(1) is two.plan(3) is two.largest
    assert two.plan(2) is two.plan(4) is not two.plan(1)
    update = sample_update(two.plan(2), seed=4)
    check_update(two.plan(2), update.body, update.weight)
    with pytest.raises(UpdateRefused):
        check_update(two.plan(1), update.body, update.weight)


def test_the_values_of_a_measuring_round_name_the_version_and_leave_the_method_its_own() -> None:
    two = rounds(2)
    sums = {each.name: np.zeros(each.shape) for each in two.plan(1).statistics}
    for name, value in {
        "images": 50.0,
        "images_squared": 2500.0,
        "clients": 1.0,
        "kernel_pairs": 100.0,
    }.items():
        sums[name_of("h", name)] = np.asarray(value)
    values = two.values(sums, 6)
    assert values is not None
    assert values.version == 6
    assert values.measures["h_images"] == 50
    assert values.measures["z_images"] == 0
    assert values.measures["h_uniformity_intra"] == pytest.approx(-np.log(100 / 2450))
    assert set(two.without(sums)) == {"loss_sum", "moments"}
    assert two.values({"loss_sum": sums["loss_sum"]}, 1) is None


def test_sums_that_are_in_range_but_nonsense_give_finite_values_or_none() -> None:
    two = rounds(1)
    generator = np.random.default_rng(2)
    for _ in range(30):
        sums = {
            each.name: generator.uniform(-each.max_abs, each.max_abs, each.shape) * MAX_COHORT
            for each in statistics(QUALITY)
        }
        told = two.values(sums, 0)
        assert told is not None
        assert all(map(np.isfinite, told.measures.values()))


def test_quality_sums_that_could_overflow_are_refused() -> None:
    with pytest.raises(OverflowRisk, match="statistic 'quality_h_"):
        rounds(1, replace(QUALITY, images=1 << 45))


def test_the_last_round_that_measured_is_found_again() -> None:
    blob = BlobRef(digest="0" * 64, size=4)

    def version(number: int, **figures: Any) -> VersionRecord:
        return VersionRecord(
            number=number,
            model_digest="1" * 64,
            full=blob,
            delta=None,
            committed_at=0.0,
            figures=Figures(**figures),
        )

    told = Quality(version=0, measures={"h_images": 9.0})
    versions = [version(0), version(1, losses={"loss": 1.0}, quality=told), version(2, losses={"loss": 0.5})]
    assert newest(versions) == told
    assert newest(versions[:1]) is None
