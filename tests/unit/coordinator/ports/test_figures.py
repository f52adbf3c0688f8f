"""A round's figures by name and typed: one form turns into the other and back without losing a bit."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coordinator.ports.figures import Cost, Figures, Kind, PrivacyCost, Quality, kind_of

COST = Cost(clients=2, weight=7, step_norm=0.5, seconds=1.25, bytes_up=1 << 40, bytes_down=0)
FULL = Figures(
    cost=COST,
    losses={"loss": 1.5, "hook_calls": 3.0},
    quality=Quality(version=4, measures={"h_images": 9.0, "h_alignment": 0.25}),
    privacy=PrivacyCost(honest=5, epsilon=1.5, round_epsilon=0.5, delta=1e-5),
)
NAMED = {
    "clients": 2.0, "weight": 7.0, "step_norm": 0.5, "seconds": 1.25, "bytes_up": float(1 << 40), "bytes_down": 0.0,
    "loss": 1.5, "hook_calls": 3.0,
    "quality_version": 4.0, "quality_h_images": 9.0, "quality_h_alignment": 0.25,
    "privacy_honest": 5.0, "privacy_epsilon": 1.5, "privacy_round_epsilon": 0.5, "privacy_delta": 1e-5,
}  # fmt: skip
VALUES = st.one_of(st.floats(), st.integers(-3, 3).map(float), st.integers(-3, 3), st.none())


def test_the_names_are_those_that_were_always_stored_and_sent() -> None:
    assert FULL.statistics == NAMED
    assert all(isinstance(value, float) for value in FULL.statistics.values())
    assert Figures.from_statistics(NAMED) == FULL
    assert Figures().statistics == {}
    assert Figures.from_statistics({}) == Figures()


def test_an_epsilon_that_cannot_be_given_is_left_out() -> None:
    lost = replace(FULL, privacy=PrivacyCost(honest=4))
    assert {name for name in NAMED if name not in lost.statistics} == {
        "privacy_epsilon", "privacy_round_epsilon", "privacy_delta",
    }  # fmt: skip
    assert Figures.from_statistics(lost.statistics) == lost


@example(told={**NAMED, "bytes_down": -0.0})
@example(told={**NAMED, "clients": 2.5})
@example(told={**NAMED, "step_norm": 1})
@example(told={**NAMED, "step_norm": math.nan})
@example(told={name: value for name, value in NAMED.items() if name != "seconds"})
@example(told={name: value for name, value in NAMED.items() if name != "privacy_honest"})
@example(told={name: value for name, value in NAMED.items() if name != "quality_version"})
@given(told=st.dictionaries(st.one_of(st.sampled_from(sorted(NAMED)), st.text(max_size=9)), VALUES))
def test_whatever_was_stored_comes_back_bit_for_bit(told: dict[str, float]) -> None:
    """The hash chain is over this text: a figure that was changed must not be read as another that looks the same."""
    again = Figures.from_statistics(told).statistics
    assert json.dumps(again, sort_keys=True) == json.dumps(told, sort_keys=True)


@pytest.mark.parametrize("missing", ["clients", "seconds", "bytes_up"])
def test_a_cost_that_is_not_whole_is_no_cost(missing: str) -> None:
    figures = Figures.from_statistics({name: value for name, value in NAMED.items() if name != missing})
    assert figures.cost is None
    assert figures.losses["weight"] == 7.0
    assert (figures.quality, figures.privacy) == (FULL.quality, FULL.privacy)


def test_every_name_tells_its_kind() -> None:
    kinds = {kind: {name for name in NAMED if kind_of(name) is kind} for kind in Kind}
    assert kinds[Kind.LOSS] == set(FULL.losses)
    assert kinds[Kind.COST] == set(Figures(cost=COST).statistics)
    assert kinds[Kind.QUALITY] == set(Figures(quality=FULL.quality).statistics)
    assert kinds[Kind.PRIVACY] == set(Figures(privacy=FULL.privacy).statistics)
    assert [kind_of(name).short(name) for name in ("quality_h_images", "privacy_delta", "clients", "loss")] == [
        "h_images", "delta", "clients", "loss",
    ]  # fmt: skip
