"""What is kept of an evaluator's answer, and what several answers come to."""

from __future__ import annotations

import math

import pytest

from coordinator.evaluation.answers import MOST_MEASURES, agreed, checked
from ssd.evaluation.client_measures import BadMeasures

HONEST = {
    "train_samples": 1437.0, "linear_probe_all": 0.93, "linear_probe_2_per_class": 0.55, "knn_k": 20.0,
    "knn_all": 1.0, "test_uniformity_global": 0.03, "effective_rank": 61.2, "h/accuracy": 2.5, "test_loss": 3.1,
}  # fmt: skip


def test_honest_measures_are_kept_as_they_are() -> None:
    assert checked(HONEST) == HONEST
    assert checked({f"m{index}": 1.0 for index in range(MOST_MEASURES)})


def test_what_is_not_finite_or_the_clients_own_is_left_out() -> None:
    odd = {"a": math.nan, "b": math.inf, "personalised_accuracy": 1.0, "client_sum_x": 1.0, "c": 2.0}
    assert checked(odd) == {"c": 2.0}


@pytest.mark.parametrize(
    "wrong",
    [
        {f"m{index}": 1.0 for index in range(MOST_MEASURES + 1)},
        {f"m{index}": math.nan for index in range(MOST_MEASURES + 1)},
        {"": 1.0},
        {"m" * 129: 1.0},
        {"two words": 1.0},
        {"a\n": 1.0},
        {"loss": 1.1e15},
        {"loss": -1.1e15},
        {"accuracy": 1.01},
        {"test_accuracy": -0.01},
        {"linear_probe_all": 93.0},
        {"test_knn_10_per_class": 1.5},
    ],
    ids=lambda wrong: f"{len(wrong)} {next(iter(wrong))[:20]!r} {next(iter(wrong.values()))}",
)
def test_what_an_answer_cannot_hold_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadMeasures):
        checked({**wrong, "fine": 0.5} if len(wrong) == 1 else wrong)


def test_one_answer_is_what_it_says() -> None:
    assert agreed([HONEST], 0.0).values == HONEST
    assert agreed([HONEST], 0.0).disputed == ()


@pytest.mark.parametrize("lie", [0.0, 1.0])
@pytest.mark.parametrize("place", range(3))
def test_one_liar_among_three_decides_nothing_and_is_noticed(lie: float, place: int) -> None:
    answers = [{"accuracy": 0.60}, {"accuracy": 0.62}]
    answers.insert(place, {"accuracy": lie})
    found = agreed(answers, 0.05)
    assert found.values["accuracy"] in (0.60, 0.62)
    assert found.disputed == ("accuracy",)


def test_a_measure_that_half_of_them_lack_is_not_kept() -> None:
    found = agreed([{"accuracy": 0.5, "invented": 1.0}, {"accuracy": 0.5}], 0.05)
    assert found.values == {"accuracy": 0.5}
    assert found.disputed == ("invented",)


@pytest.mark.parametrize(
    ("values", "disputed"),
    [
        ((0.50, 0.55), False),
        ((0.50, 0.56), True),
        ((100.0, 105.0), False),
        ((100.0, 106.0), True),
        ((-100.0, -105.0), False),
        ((-1.0, 1.0), True),
    ],
)
def test_how_far_apart_they_may_lie_grows_with_what_is_measured(
    values: tuple[float, float], disputed: bool
) -> None:
    found = agreed([{"m": value} for value in values], 0.0501)
    assert (found.disputed == ("m",)) is disputed
    assert found.values == {"m": min(values)}
