import logging
from pathlib import Path

import pytest
import torch
from PIL import Image

from ssd.data.images.builtin import load_builtin
from ssd.data.images.errors import DataError
from ssd.data.images.source import ImageFormat, TensorImages
from ssd.data.images.subset import SubsetImages
from ssd.data.open import DataConfig, open_builtin, open_client, open_client_test, open_probe
from ssd.data.partition.held_out import with_test
from ssd.data.partition.partition import dirichlet, iid, load, save

GREY_8 = ImageFormat(size=8, channels=1)


@pytest.fixture
def digits(tmp_path: Path) -> DataConfig:
    config = DataConfig(kind="digits", partition=tmp_path / "partition.json")
    whole = open_builtin(config, GREY_8)
    save(dirichlet(whole.train.labels.tolist(), 4, 0.3, seed=0, dataset="digits"), config.partition)
    return config


def test_clients_of_a_built_in_set_share_out_its_training_images(digits: DataConfig) -> None:
    whole = load_builtin("digits", GREY_8).train
    sources = [open_client(digits, f"client-00{number}", GREY_8) for number in range(4)]
    assert sum(len(source) for source in sources) == 1437
    assert torch.equal(
        torch.cat([source.labels for source in sources]).sort().values, whole.labels.sort().values
    )
    first = sources[0]
    assert first.format == GREY_8
    assert first.batch([0, 1]).shape == (2, 1, 8, 8)


def test_the_probe_of_a_built_in_set_is_its_own_split(digits: DataConfig) -> None:
    probe = open_probe(digits, ImageFormat(size=16, channels=3))
    assert (probe.name, len(probe.train), len(probe.test)) == ("digits", 1437, 360)
    assert probe.test.format == ImageFormat(size=16, channels=3)


def test_a_client_of_a_built_in_set_is_measured_on_the_test_images_of_the_partition(
    digits: DataConfig,
) -> None:
    whole = load_builtin("digits", GREY_8)
    assert open_client_test(digits, "client-000", GREY_8) is None, "this partition has no test images"
    split = with_test(load(digits.partition), "proportional", whole.test.labels.tolist(), "digits-test")
    save(split, digits.partition)
    found = {client: open_client_test(digits, client, GREY_8) for client in split.clients}
    assert {client: 0 if source is None else len(source) for client, source in found.items()} == {
        client: len(indices) for client, indices in split.test.clients.items()
    }
    first = found["client-000"]
    indices = list(split.test.clients["client-000"])
    assert torch.equal(first.batch(range(len(first))), whole.test.batch(indices))
    assert torch.equal(first.labels, whole.test.labels[indices])
    with pytest.raises(DataError, match=r"'client-00'.*; did you mean client-00\d"):
        open_client_test(digits, "client-00", GREY_8)


def test_test_images_of_another_test_split_are_refused(digits: DataConfig) -> None:
    labels = load_builtin("digits", GREY_8).test.labels.tolist()
    save(with_test(load(digits.partition), "proportional", labels[::-1], "digits-test"), digits.partition)
    with pytest.raises(DataError, match="made for digits-test"):
        open_client_test(digits, "client-000", GREY_8)
    assert len(open_client(digits, "client-000", GREY_8)) > 0, "training does not look at them"


def test_an_unknown_client_is_told_the_nearest_name(digits: DataConfig) -> None:
    with pytest.raises(
        DataError, match=r"'clint-002' is not in the partition of digits.*; did you mean client-002"
    ):
        open_client(digits, "clint-002", GREY_8)


def test_a_partition_is_needed_and_must_be_of_this_data_set(digits: DataConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="set `partition`"):
        open_client(DataConfig(kind="digits"), "client-000", GREY_8)
    save(iid(1437, 2, seed=0, dataset="digits"), tmp_path / "other.json")
    with pytest.raises(DataError, match="make a new partition"):
        open_client(DataConfig(kind="digits", partition=tmp_path / "other.json"), "client-000", GREY_8)


@pytest.fixture
def folders(tmp_path: Path) -> DataConfig:
    for site in ("north", "south"):
        for label in ("cat", "dog"):
            (tmp_path / site / label).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (40, 30), (number, 0, 0)).save(tmp_path / site / label / f"{number}.png")
    return DataConfig(
        kind="folder",
        folders={"north": tmp_path / "north", "south": tmp_path / "south"},
        probe=tmp_path / "north",
        index_dir=tmp_path / "index",
    )


def test_a_client_may_be_a_folder_of_images(folders: DataConfig, tmp_path: Path) -> None:
    source = open_client(folders, "south", ImageFormat(size=16, channels=3))
    assert len(source) == 6
    assert source.labels is None
    assert source.batch([5]).shape == (1, 3, 18, 18)
    assert len(list((tmp_path / "index").iterdir())) == 1
    with pytest.raises(
        DataError, match=r"'west' is not in the table of client folders.*2 clients; valid are north, south"
    ):
        open_client(folders, "west", ImageFormat(size=16, channels=3))


def test_labels_of_folder_clients_agree_when_the_classes_are_given(folders: DataConfig) -> None:
    config = DataConfig(
        kind="folder", folders=folders.folders, labels="folders", classes=("dog", "bird", "cat")
    )
    source = open_client(config, "north", ImageFormat(size=16, channels=3))
    assert source.labels.tolist() == [2, 2, 2, 0, 0, 0]


def test_test_images_of_a_folder_client_are_labelled_and_at_the_exact_size(folders: DataConfig) -> None:
    config = DataConfig(
        kind="folder", folders=folders.folders, test_folders={"north": folders.folders["south"]},
        labels="folders", classes=("dog", "bird", "cat"),
    )  # fmt: skip
    source = open_client_test(config, "north", ImageFormat(size=16, channels=3))
    assert source.labels.tolist() == [2, 2, 2, 0, 0, 0]
    assert source.batch([0]).shape == (1, 3, 16, 16)
    assert open_client_test(config, "south", ImageFormat(size=16, channels=3)) is None
    with pytest.raises(DataError, match="'west'"):
        open_client_test(config, "west", ImageFormat(size=16, channels=3))
    with pytest.raises(DataError, match="`classes`"):
        DataConfig(kind="folder", folders=folders.folders, test_folders=config.test_folders, labels="folders")


def test_a_folder_probe_is_labelled_and_at_the_exact_size(folders: DataConfig) -> None:
    probe = open_probe(folders, ImageFormat(size=16, channels=3))
    assert probe.train.labels.tolist() == [0, 0, 1, 1]
    assert probe.train.batch([0]).shape == (1, 3, 16, 16)
    with pytest.raises(DataError, match="set `probe`"):
        open_probe(DataConfig(kind="folder"), GREY_8)


def test_images_left_out_are_logged_once_when_a_client_is_opened(
    folders: DataConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "north" / "cat" / "broken.jpg").write_text("x")
    with caplog.at_level(logging.WARNING, logger="ssd.data.open"):
        open_client(folders, "north", ImageFormat(size=16, channels=3))
        open_client(folders, "south", ImageFormat(size=16, channels=3))
    assert len(caplog.records) == 1
    assert "1 not an image (first: cat/broken.jpg)" in caplog.text


def test_a_data_configuration_is_checked_when_it_is_made() -> None:
    with pytest.raises(DataError, match="no data set 'cifar'"):
        DataConfig(kind="cifar")
    with pytest.raises(DataError, match="`none`, `folders` or `column`"):
        DataConfig(kind="folder", labels="file")


def test_a_subset_is_a_view_in_the_order_of_its_indices() -> None:
    base = TensorImages(
        torch.arange(5, dtype=torch.uint8).reshape(5, 1, 1, 1).expand(5, 1, 4, 4), torch.arange(5)
    )
    subset = SubsetImages(base, [3, 1, 4])
    assert len(subset) == 3
    assert subset.labels.tolist() == [3, 1, 4]
    assert subset.batch([2, 0])[:, 0, 0, 0].tolist() == [4, 3]
    assert subset.batch(range(2))[:, 0, 0, 0].tolist() == [3, 1]
    assert len(SubsetImages(base, [])) == 0
    for wrong in ([5], [-1]):
        with pytest.raises(IndexError, match=r"0\.\.4"):
            SubsetImages(base, wrong)
    with pytest.raises(IndexError):
        subset.batch([3])
