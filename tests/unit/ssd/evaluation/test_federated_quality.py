"""A client's part in measuring representation quality, and that measuring changes nothing else."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from ssd.data.images.subset import SubsetImages
from ssd.data.views.views import PRESETS, Views
from ssd.evaluation import quality as exact
from ssd.evaluation.features import features, module_encoder
from ssd.evaluation.federated_quality import (
    QualityOptions,
    Sums,
    chosen_images,
    client_sums,
    nothing,
    sums_of,
)
from ssd.methods.self_supervised import fed_align_uniform, ssd
from ssd.methods.self_supervised.base import AlignUniform
from ssd.settings import SettingsError
from ssd.updates.declaration import Declaration
from ssd.updates.quality_sums import MAX_NORM, artefacts, frequencies_name, name_of, read
from training.training_samples import SMALL, digits, task_for, train

OPTIONS = {"frequencies": 1024, "images": 60, "min_images": 30}
MEASURING = {**SMALL, "quality": OPTIONS}


def sums_of_visit(method: AlignUniform, **changes: Any) -> Sums:
    quality = method.declare().quality
    assert quality is not None
    made = {**method.artefacts(0), **artefacts(quality, 0)}
    result = train(method, artefacts=made, quality=True, **changes)
    return {name: value for name, value in result.statistics.items() if name.startswith("quality_")}


def test_measuring_changes_no_bit_of_what_is_trained() -> None:
    plain = train(ssd.create(SMALL))
    method = ssd.create(MEASURING)
    quality = method.declare().quality
    assert quality is not None
    made = {**method.artefacts(0), **artefacts(quality, 0)}
    measured = train(method, artefacts=made, quality=True)
    assert np.array_equal(measured.delta, plain.delta)
    assert measured.weight == plain.weight
    own = {name: value for name, value in measured.statistics.items() if not name.startswith("quality_")}
    assert own == plain.statistics


def test_a_visit_reports_exactly_what_is_declared_for_it() -> None:
    method = ssd.create(MEASURING)
    quality = method.declare().quality
    assert quality is not None
    found = sums_of_visit(method)
    assert {name: value.shape for name, value in found.items()} == {
        name: value.shape for name, value in nothing(quality).items()
    }
    assert found[name_of("h", "images")] == 40
    assert not [name for name in train(method).statistics if name.startswith("quality_")]


def test_the_sums_of_clients_say_what_the_exact_measures_say_of_their_images() -> None:
    method = fed_align_uniform.create(MEASURING)
    quality = method.declare().quality
    assert quality is not None
    images = digits(0, 240)
    base = method.initial(0, None)
    parts = [
        sums_of_visit(
            method, client_id=f"c{start}", base=base, data=SubsetImages(images, range(start, start + 60))
        )
        for start in range(0, 240, 60)
    ]
    total = {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}
    told = read(quality, total, artefacts(quality, 0), 4)
    model = method._model(torch.device("cpu"))
    model.load(base)
    pooled = features(module_encoder(model.parts["encoder"]), images)
    spread = exact.uniformity(pooled, [row // 60 for row in range(240)])
    assert told["h_uniformity_intra"] == pytest.approx(spread.intra, abs=1e-6)
    assert told["h_uniformity_inter"] == pytest.approx(spread.inter, abs=0.01)
    assert told["h_uniformity_global"] == pytest.approx(spread.overall, abs=0.01)
    assert told["h_effective_rank"] == pytest.approx(exact.effective_rank(pooled).value, rel=1e-3)
    assert told["z_images"] == 240
    assert 0 < told["h_alignment"] < 4


def test_images_and_views_are_the_same_in_every_round_and_others_for_every_client() -> None:
    method = ssd.create({**MEASURING, "quality": {**OPTIONS, "images": 30}})
    first, later = sums_of_visit(method), sums_of_visit(method, round=7)
    for name, value in first.items():
        assert np.array_equal(value, later[name]), name
    other = sums_of_visit(method, client_id="client-001")
    assert not np.array_equal(other[name_of("h", "mean")], first[name_of("h", "mean")])


def test_no_more_images_than_declared_and_none_of_a_client_with_too_few() -> None:
    quality = QualityOptions(**OPTIONS).declaration({"h": 16, "z": 16})
    assert len(chosen_images(quality, 1, "c", 500)) == 60
    assert chosen_images(quality, 1, "c", 60) == list(range(60))
    assert chosen_images(quality, 1, "c", 30) == list(range(30))
    assert chosen_images(quality, 1, "c", 29) == []
    found = sums_of_visit(ssd.create(MEASURING), data=digits(0, 29))
    assert all(not value.any() for value in found.values())


@pytest.mark.parametrize("value", [math.nan, math.inf, 2 * MAX_NORM])
def test_features_that_no_exact_sum_can_hold_are_left_out_kind_by_kind(value: float) -> None:
    quality = QualityOptions(**OPTIONS).declaration({"h": 16, "z": 16})

    def encode(images: torch.Tensor) -> dict[str, torch.Tensor]:
        h = images.to(torch.float32).flatten(1)[:, :16]
        z = h.clone()
        z[0, 0] = value
        return {"h": h, "z": z}

    task = task_for(ssd.create(MEASURING), artefacts=artefacts(quality, 0))
    views = Views(PRESETS["digits"], 8)
    found = client_sums(quality, encode, views, digits(), task, size=8)
    assert found[name_of("h", "images")] == 40
    assert not any(value.any() for name, value in found.items() if name.startswith("quality_z_"))


def test_without_statistics_of_its_own_a_client_takes_no_part() -> None:
    method = ssd.create({**MEASURING, "buffers": "local"})
    assert all(not value.any() for value in sums_of_visit(method).values())
    state = train(method).state
    assert sums_of_visit(method, state=state)[name_of("h", "images")] == 40


def test_a_task_without_the_frequencies_is_refused() -> None:
    with pytest.raises(ValueError, match="an artefact 'quality_frequencies_h' of shape"):
        train(ssd.create(MEASURING), quality=True)


def test_the_declaration_survives_json_with_its_quality() -> None:
    declaration = ssd.create(MEASURING).declare()
    assert declaration.quality is not None
    assert declaration.quality.features == {"h": 16, "z": 16}
    assert Declaration.from_json(declaration.to_json()) == declaration
    assert ssd.create(SMALL).declare().quality is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"frequencies": 31}, "at least twice the longest feature, 32, got 31"),
        ({"features": []}, "features must name h, z or both"),
        ({"features": ["h", "h"]}, "features must name h, z or both"),
        ({"features": ["y"]}, "must be 'h' or 'z'"),
        ({"min_images": 1}, "min_images must be 2 to images"),
        ({"images": 10}, "min_images must be 2 to images"),
    ],
)
def test_a_wrong_quality_section_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        ssd.create({**SMALL, "quality": {**OPTIONS, **options}})


def test_only_the_named_features_are_measured() -> None:
    method = ssd.create({**SMALL, "quality": {**OPTIONS, "features": ["h"]}})
    found = sums_of_visit(method)
    assert {name.split("_")[1] for name in found} == {"h"}
    assert dataclasses.asdict(QualityOptions())["features"] == ("h", "z")


def test_zeros_are_the_same_points_in_the_sums_as_where_features_are_pooled() -> None:
    quality = QualityOptions(frequencies=4096, images=60, min_images=30, features=("h",)).declaration(
        {"h": 16}
    )
    frequencies = artefacts(quality, 0)
    generator = torch.Generator().manual_seed(1)
    clients = [torch.randn(60, 16, generator=generator, dtype=torch.float64) for _ in range(4)]
    for number, each in enumerate(clients):
        each[: 15 * number] = 0.0  # none, a quarter, half, and three quarters of a client's features
    parts = [
        sums_of(
            quality, "h", each, torch.stack([each, each], 1), torch.tensor(frequencies[frequencies_name("h")])
        )
        for each in clients
    ]
    told = read(
        quality, {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}, frequencies, 4
    )
    spread = exact.uniformity(torch.cat(clients), [row // 60 for row in range(240)])
    assert spread.zeros == 90
    assert told["h_uniformity_intra"] == pytest.approx(spread.intra, abs=1e-9)
    assert told["h_uniformity_inter"] == pytest.approx(spread.inter, abs=0.01)
    assert told["h_alignment"] == 0.0
