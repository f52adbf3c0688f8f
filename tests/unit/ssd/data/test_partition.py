import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Never

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.data.images.errors import DataError
from ssd.data.images.identity import DatasetIdentity
from ssd.data.partition.partition import Partition, client_ids, dirichlet, iid, load, save
from ssd.data.partition.portion import Portion
from ssd.digest import json_digest

LABELS = [index % 10 for index in range(1000)]


def owned(partition: Partition) -> list[int]:
    return sorted(index for indices in partition.clients.values() for index in indices)


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=30, max_size=120),
    clients=st.integers(1, 6),
    alpha=st.sampled_from([0.001, 0.1, 1.0, 100.0]),
    seed=st.integers(0, 5),
    min_size=st.integers(0, 5),
)
def test_a_dirichlet_partition_gives_every_image_to_exactly_one_client(
    labels: list[int], clients: int, alpha: float, seed: int, min_size: int
) -> None:
    drawn = dirichlet(labels, clients, alpha, seed, min_size=min_size)
    assert owned(drawn) == list(range(len(labels)))
    assert all(len(indices) >= min_size for indices in drawn.clients.values())
    for client, indices in drawn.clients.items():
        assert list(indices) == sorted(indices)
        values, counts = np.unique([labels[index] for index in indices], return_counts=True)
        assert drawn.histograms[client] == dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_the_shares_of_a_class_are_one_draw_from_the_dirichlet_distribution() -> None:
    # Marginal of a symmetric Dirichlet: mean 1/K, variance (K-1) / (K^2 (K alpha + 1)).
    clients, alpha = 5, 0.5
    shares = []
    for seed in range(200):
        drawn = dirichlet([0] * 1000, clients, alpha, seed, min_size=0)
        shares += [len(indices) / 1000 for indices in drawn.clients.values()]
    expected = (clients - 1) / (clients**2 * (clients * alpha + 1))
    assert np.mean(shares) == pytest.approx(1 / clients)
    assert np.var(shares) == pytest.approx(expected, rel=0.15)


def test_classes_are_drawn_independently_and_images_within_a_class_are_shuffled() -> None:
    drawn = dirichlet(LABELS, 4, 0.1, seed=3, min_size=0)
    shapes = {
        tuple(drawn.histograms[client].get(label, 0) for client in drawn.clients) for label in range(10)
    }
    assert len(shapes) > 5
    largest = max(drawn.clients.values(), key=len)
    assert list(largest) != list(range(largest[0], largest[0] + len(largest)))


def test_a_small_client_is_filled_up_with_few_moves_and_the_rest_of_the_draw_stays() -> None:
    loose = dirichlet(LABELS, 10, 0.05, seed=1, min_size=0)
    guarded = dirichlet(LABELS, 10, 0.05, seed=1, min_size=12)
    assert min(map(len, loose.clients.values())) < 12
    assert min(map(len, guarded.clients.values())) == 12
    missing = sum(max(0, 12 - len(indices)) for indices in loose.clients.values())
    moved = sum(len(set(guarded.clients[name]) - set(loose.clients[name])) for name in loose.clients)
    assert moved == missing


def test_the_same_arguments_draw_the_same_partition_on_every_machine() -> None:
    # A golden value: a change here silently changes every experiment that draws its partition anew.
    first = dirichlet(LABELS, 7, 0.3, seed=11)
    assert first == dirichlet(LABELS, 7, 0.3, seed=11)
    assert first.clients != dirichlet(LABELS, 7, 0.3, seed=12).clients
    assert json_digest({name: list(rows) for name, rows in first.clients.items()})[:16] == "cf621fc63c7e06cc"
    dealt = iid(100, 7, seed=11)
    assert json_digest({name: list(rows) for name, rows in dealt.clients.items()})[:16] == "64dde12eafc4b861"


def test_an_iid_partition_has_equal_sizes_and_mixed_labels() -> None:
    dealt = iid(1000, 7, seed=0, labels=LABELS, dataset="tens")
    assert owned(dealt) == list(range(1000))
    sizes = [len(indices) for indices in dealt.clients.values()]
    assert max(sizes) - min(sizes) <= 1
    assert all(len(histogram) == 10 for histogram in dealt.histograms.values())
    assert iid(10, 2, seed=0).histograms == {}


@pytest.mark.parametrize("take", ["sample", "first"])
def test_a_portion_deals_out_only_so_many_images(take: str) -> None:
    labels = [0] * 600 + [1] * 300 + [2] * 100
    portion = Portion(images=100, take=take)
    for drawn in (
        dirichlet(labels, 4, 0.3, seed=5, portion=portion),
        iid(1000, 4, seed=5, labels=labels, portion=portion),
    ):
        assert drawn.portion == portion
        assert owned(drawn) == portion.choose(1000, labels, 5)
        per_class = np.bincount([labels[index] for index in owned(drawn)], minlength=3).tolist()
        assert per_class == ([60, 30, 10] if take == "sample" else [100, 0, 0])


def test_a_sample_depends_on_the_seed_and_the_first_images_do_not() -> None:
    assert Portion(images=50).choose(1000, LABELS, 1) != Portion(images=50).choose(1000, LABELS, 2)
    assert Portion(images=3, take="first").choose(1000, None, 1) == [0, 1, 2]


def test_client_names_sort_by_number() -> None:
    assert client_ids(3) == ("client-000", "client-001", "client-002")
    assert list(client_ids(1001)) == sorted(client_ids(1001))


@pytest.mark.parametrize(
    "call",
    [
        lambda: dirichlet(LABELS, 0, 0.1, 0),
        lambda: dirichlet(LABELS, 5, 0.0, 0),
        lambda: dirichlet(LABELS, 5, float("nan"), 0),
        lambda: dirichlet(LABELS, 200, 0.1, 0, min_size=10),
        lambda: iid(3, 4, 0),
        lambda: iid(4, 2, 0, labels=[0]),
        lambda: iid(4, 2, 0, portion=Portion(images=2)),
        lambda: iid(4, 2, 0, portion=Portion(images=5, take="first")),
        lambda: dirichlet(LABELS, 20, 0.1, 0, portion=Portion(images=100)),
    ],
)
def test_impossible_partitions_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(DataError):
        call()


def test_a_saved_partition_is_loaded_unchanged_and_can_be_read_by_a_person(tmp_path: Path) -> None:
    path = tmp_path / "made" / "partition.json"
    drawn = dirichlet(LABELS, 5, 0.1, seed=2, dataset="tens")
    save(drawn, path)
    assert load(path, DatasetIdentity.of("tens", LABELS)) == drawn
    value = json.loads(path.read_text())
    assert value["dataset"]["size"] == 1000
    assert value["clients"]["client-002"]["size"] == len(drawn.clients["client-002"])
    assert len(path.read_text().splitlines()) < 30
    assert [child.name for child in path.parent.iterdir()] == ["partition.json"]


@pytest.mark.parametrize(
    ("identity", "word"),
    [
        (DatasetIdentity.of("others", LABELS), "others"),
        (DatasetIdentity.of("tens", LABELS[:-1]), "999"),
        (DatasetIdentity.of("tens", LABELS[::-1]), "made for tens"),
    ],
)
def test_a_partition_of_another_data_set_is_refused(
    tmp_path: Path, identity: DatasetIdentity, word: str
) -> None:
    path = tmp_path / "partition.json"
    save(dirichlet(LABELS, 5, 0.1, seed=2, dataset="tens"), path)
    with pytest.raises(DataError, match=word):
        load(path, identity)


def overlap(value: Any) -> None:
    value["clients"]["client-001"]["indices"][0] = value["clients"]["client-000"]["indices"][0]
    value["clients"]["client-001"]["indices"].sort()


def out_of_range(value: Any) -> None:
    value["clients"]["client-000"]["indices"][-1] = 1000


def huge(value: Any) -> None:
    value["clients"]["client-000"]["indices"][-1] = 2**70


def negative(value: Any) -> None:
    value["clients"]["client-000"]["indices"][0] = -1


def unsorted(value: Any) -> None:
    value["clients"]["client-000"]["indices"].reverse()


def repeated(value: Any) -> None:
    indices = value["clients"]["client-000"]["indices"]
    indices[1] = indices[0]


def fractional(value: Any) -> None:
    value["clients"]["client-000"]["indices"][0] = 0.5


def wrong_size(value: Any) -> None:
    value["clients"]["client-000"]["size"] += 1


def wrong_histogram(value: Any) -> None:
    value["clients"]["client-000"]["labels"] = {"0": 1}


def other_version(value: Any) -> None:
    value["version"] = 1


def other_format(value: Any) -> None:
    value["format"] = "something"


def nobody(value: Any) -> None:
    value["clients"] = {}


def no_dataset(value: Any) -> None:
    del value["dataset"]


def clients_list(value: Any) -> None:
    value["clients"] = [1, 2]


DAMAGE = [
    overlap, out_of_range, huge, negative, unsorted, repeated, fractional, wrong_size, wrong_histogram,
    other_version, other_format, nobody, no_dataset, clients_list,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda function: function.__name__)
def test_a_damaged_partition_file_is_refused_and_named(tmp_path: Path, damage: Callable[[Any], Any]) -> None:
    path = tmp_path / "partition.json"
    save(iid(1000, 3, seed=2, labels=LABELS, dataset="tens"), path)
    value = json.loads(path.read_text())
    damage(value)
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"partition\.json"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"not json", b"\xff\xfe", b"[1, 2]", b'"text"'])
def test_a_file_that_is_no_partition_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "partition.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"partition\.json"):
        load(path)


def test_a_missing_partition_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no partition file at .*absent\.json"):
        load(tmp_path / "absent.json")


def test_an_unknown_client_is_told_the_nearest_name() -> None:
    drawn = iid(30, 3, seed=0)
    with pytest.raises(DataError, match=r"'client-1'.*3 clients; did you mean client-001"):
        drawn.indices("client-1")


def test_a_failed_save_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "partition.json"
    save(iid(30, 3, seed=0), path)
    before = path.read_bytes()

    def full_disk(*_: object) -> Never:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        save(iid(30, 3, seed=1), path)
    assert path.read_bytes() == before
    assert [child.name for child in tmp_path.iterdir()] == ["partition.json"]
