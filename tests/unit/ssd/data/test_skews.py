"""A few classes each, and unequal sizes: what the words promise, for any numbers, and the same file for one seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ssd.data.command import partition
from ssd.data.images.errors import DataError
from ssd.data.partition.partition import load, problem_of, save
from ssd.data.partition.skews import pathological, quantity

LABELS = np.random.default_rng(0).integers(0, 10, 2_000).tolist()


@given(clients=st.integers(1, 60), classes=st.integers(1, 10), seed=st.integers(0, 50))
def test_everybody_holds_exactly_so_many_classes_and_classes_are_held_alike(
    clients: int, classes: int, seed: int
) -> None:
    made = pathological(LABELS, clients, classes, seed)
    assert problem_of(made) is None
    assert all(len(each) == classes for each in made.histograms.values())
    held = Counter(label for each in made.histograms.values() for label in each)
    counts = [held[label] for label in range(10)]
    assert max(counts) - min(counts) <= 2
    dealt = sum(len(each) for each in made.clients.values())
    assert dealt == sum(LABELS.count(label) for label in held), "a class that is held is dealt out whole"


@given(clients=st.integers(1, 100), alpha=st.floats(0.01, 100), seed=st.integers(0, 50))
def test_sizes_differ_and_classes_do_not(clients: int, alpha: float, seed: int) -> None:
    made = quantity(LABELS, clients, alpha, seed)
    assert problem_of(made) is None
    sizes = [len(each) for each in made.clients.values()]
    assert sum(sizes) == 2_000
    assert min(sizes) >= 10
    largest = max(made.histograms.values(), key=lambda each: sum(each.values()))
    if sum(largest.values()) > 1_000:
        assert len(largest) == 10


def test_a_small_alpha_makes_a_few_giants() -> None:
    sizes = sorted(len(each) for each in quantity(LABELS, 20, 0.1, 1).clients.values())
    assert sizes[-1] > 500
    assert sizes[0] == 10
    even = sorted(len(each) for each in quantity(LABELS, 20, 1e4, 1).clients.values())
    assert even[-1] - even[0] < 20


def test_one_seed_is_one_file_and_another_another(tmp_path: Path) -> None:
    for number, made in enumerate([pathological(LABELS, 9, 3, 4), pathological(LABELS, 9, 3, 4)]):
        save(made, tmp_path / f"{number}.json")
    assert (tmp_path / "0.json").read_bytes() == (tmp_path / "1.json").read_bytes()
    assert load(tmp_path / "0.json") == pathological(LABELS, 9, 3, 4)
    assert pathological(LABELS, 9, 3, 5).clients != pathological(LABELS, 9, 3, 4).clients


@pytest.mark.parametrize(
    ("clients", "classes", "words"), [(3, 11, "1 to 10"), (3, 0, "1 to 10"), (0, 2, "at least one")]
)
def test_impossible_numbers_are_refused(clients: int, classes: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        pathological(LABELS, clients, classes, 0)


def test_a_class_with_fewer_images_than_holders_is_named() -> None:
    with pytest.raises(DataError, match="the 1 images of class 7 cannot be dealt out to 5 clients"):
        pathological([7, *[1] * 50], 5, 2, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scheme", "pathological", "--classes", "3"], "3 classes each"),
        (["--scheme", "quantity"], "sizes by Dirichlet(0.1)"),
    ],
)
def test_by_the_command(tmp_path: Path, arguments: list[str], words: str) -> None:
    out = tmp_path / "p.json"
    done = CliRunner().invoke(
        partition,
        ["make", "--data", "digits", "--clients", "8", *arguments, "--out", str(out)],
        env={"COLUMNS": "200"},
    )
    assert done.exit_code == 0, done.output
    assert words in " ".join(done.output.split())
    assert len(load(out).clients) == 8
