"""Built-in data sets: digits always; torchvision's from files made here, and from real ones where there are any."""

import hashlib
import os
import pickle
import struct
from pathlib import Path
from typing import Never

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ssd.data.images import builtin
from ssd.data.images.builtin import fit, load_builtin, stratified_split
from ssd.data.images.errors import DataError
from ssd.data.images.source import ImageFormat
from ssd.digest import json_digest
from ssd.torch_support.torchvision_compat import torchvision

GREY_8 = ImageFormat(size=8, channels=1)


def real_root(*members: str) -> Path:
    """A folder with restored data sets, from SSD_DATA_ROOT or shared/data beside the repository; or skip."""
    beside = Path(__file__).resolve().parents[5] / "shared" / "data"
    for root in (os.environ.get("SSD_DATA_ROOT"), beside):
        if root and all((Path(root) / member).exists() for member in members):
            return Path(root)
    pytest.skip(
        f"no {members[0]} in $SSD_DATA_ROOT or {beside.parent.name}/{beside.name} beside the repository"
    )


def test_digits_are_there_without_any_file() -> None:
    digits = load_builtin("digits", GREY_8)
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    assert digits.train.format == digits.test.format == GREY_8
    assert digits.class_names == tuple("0123456789")
    images = digits.train.batch(range(len(digits.train)))
    assert images.shape == (1437, 1, 8, 8)
    assert (int(images.min()), int(images.max())) == (0, 255)
    assert len(images.unique()) == 17


def test_digits_are_scikit_learns_own_however_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    bunch = load_digits()
    table = builtin._digits_table()
    np.testing.assert_array_equal(table, np.column_stack([bunch.data, bunch.target]))
    monkeypatch.setattr(builtin, "find_spec", lambda name: None)
    np.testing.assert_array_equal(builtin._digits_table(), table)


def test_the_digits_split_is_stratified_and_fixed_for_good() -> None:
    digits = load_builtin("digits", GREY_8)
    share = torch.bincount(digits.test.labels) / torch.bincount(
        torch.cat([digits.train.labels, digits.test.labels])
    )
    assert torch.allclose(share, torch.full((10,), 0.2), atol=0.005)
    train, test = stratified_split(np.arange(1797) % 10, 360, "digits-split")
    assert sorted(train + test) == list(range(1797))
    # Golden: another split would make every number measured on digits incomparable.
    assert digits.identity.labels_digest[:16] == "343b07e6309a51f5"
    assert json_digest(test)[:16] == "f4ae7f77fc5d4914"


def test_a_stratified_split_takes_the_exact_number_and_at_most_one_off_the_share() -> None:
    labels = np.array([0] * 7 + [1] * 5 + [2] * 3)
    train, test = stratified_split(labels, 5, "any")
    assert (len(train), len(test)) == (10, 5)
    assert np.bincount(labels[test]).tolist() == [2, 2, 1]
    assert test == sorted(test)


@pytest.mark.parametrize("image", [ImageFormat(size=8, channels=3), ImageFormat(size=32, channels=3)])
def test_digits_take_the_format_a_run_asks_for(image: ImageFormat) -> None:
    batch = load_builtin("digits", image).train.batch([0, 1])
    assert batch.shape == (2, 3, image.size, image.size)
    assert torch.equal(batch[:, 0], batch[:, 2])


def test_colour_becomes_luma_and_sizes_are_resampled_with_antialiasing() -> None:
    image = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    image[..., 1] = 200
    grey = fit(image, ImageFormat(size=4, channels=1))
    assert grey.unique().tolist() == [round(0.587 * 200)]
    stripes = np.zeros((1, 64, 64), dtype=np.uint8)
    stripes[:, :, ::2] = 255
    # Without antialiasing a quarter of the size would hit only black or only white columns.
    assert (fit(stripes, ImageFormat(size=16, channels=1))[..., 2:-2].int() - 128).abs().max() <= 2
    assert (fit(np.full((2, 28, 28), 7, dtype=np.uint8), ImageFormat(size=32, channels=3)) == 7).all()


def test_the_same_set_is_opened_once_for_many_clients() -> None:
    assert load_builtin("digits", GREY_8) is load_builtin("digits", GREY_8)


def write_mnist(root: Path) -> None:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 20), ("t10k", 10)):
        labels = bytes(index % 10 for index in range(count))
        pixels = b"".join(bytes([index]) * 784 for index in range(count))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, count) + labels)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, count, 28, 28) + pixels)


def test_mnist_files_are_read_and_brought_to_the_format(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    mnist = load_builtin("mnist", ImageFormat(size=32, channels=3), tmp_path)
    assert (len(mnist.train), len(mnist.test)) == (20, 10)
    assert mnist.train.batch([13]).unique().tolist() == [13]
    assert mnist.train.labels[:3].tolist() == [0, 1, 2]
    assert mnist.identity.name == mnist.probe().name == "mnist"


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout of the real files with 2 images a batch; the checksums are those of these files."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    cifar = torchvision("torchvision.datasets").CIFAR10

    def write(name: str, value: dict[str, object]) -> list[str]:
        content = pickle.dumps(value)
        (folder / name).write_bytes(content)
        return [name, hashlib.md5(content).hexdigest()]

    def batch(first: int) -> dict[str, object]:
        pixels = np.arange(2 * 3072, dtype=np.int64) % 251 + first
        return {"data": pixels.astype(np.uint8).reshape(2, 3072), "labels": [first, 9]}

    train = [write(f"data_batch_{number}", batch(number)) for number in range(1, 6)]
    test = [write("test_batch", batch(0))]
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    meta = {**cifar.meta, "md5": write("batches.meta", {"label_names": names})[1]}
    monkeypatch.setattr(cifar, "train_list", train)
    monkeypatch.setattr(cifar, "test_list", test)
    monkeypatch.setattr(cifar, "meta", meta)


def test_cifar_files_are_read_in_channel_row_column_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10(tmp_path, monkeypatch)
    cifar = load_builtin("cifar10", ImageFormat(size=32, channels=3), tmp_path)
    assert (len(cifar.train), len(cifar.test)) == (10, 2)
    assert cifar.train.labels.tolist() == [1, 9, 2, 9, 3, 9, 4, 9, 5, 9]
    assert cifar.class_names[3] == "cat"
    first = cifar.train.batch([0])[0]
    assert first[0, 0, :3].tolist() == [1, 2, 3]
    assert first[1, 0, 0] == 1024 % 251 + 1
    assert load_builtin("cifar10", ImageFormat(size=16, channels=1), tmp_path).train.batch([0]).shape == (
        1,
        1,
        16,
        16,
    )


def test_missing_files_name_the_folder_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no usable CIFAR10 under .*nowhere.*download = true"):
        load_builtin("cifar10", ImageFormat(size=32, channels=3), tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"'mnist' needs a root folder; set `root`"):
        load_builtin("mnist", GREY_8)
    with pytest.raises(
        DataError, match=r"no data set 'imagenet'; known are digits, cifar10, cifar100, mnist and folder"
    ):
        load_builtin("imagenet", GREY_8)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_downloaded_unless_asked_and_a_failure_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def no_network(self: object) -> Never:
        asked.append(type(self).__name__)
        raise OSError("Name or service not known")

    monkeypatch.setattr(torchvision("torchvision.datasets").CIFAR10, "download", no_network)
    image = ImageFormat(size=32, channels=3)
    with pytest.raises(DataError, match="download = true"):
        load_builtin("cifar10", image, tmp_path)
    assert asked == []
    with pytest.raises(DataError, match=r"not known.*download failed; check the network"):
        load_builtin("cifar10", image, tmp_path, True)
    assert asked == ["CIFAR10"]


def test_real_cifar_10_is_the_published_one() -> None:
    root = real_root("cifar-10-batches-py")
    cifar = load_builtin("cifar10", ImageFormat(size=32, channels=3), root)
    assert (len(cifar.train), len(cifar.test)) == (50_000, 10_000)
    assert torch.bincount(cifar.train.labels).tolist() == [5000] * 10
    assert cifar.train.labels[:5].tolist() == [6, 9, 9, 4, 1]
    assert cifar.train.batch([0])[0, :, 0, 0].tolist() == [59, 62, 63]


def test_real_mnist_is_the_published_one() -> None:
    root = real_root("MNIST/raw/train-images-idx3-ubyte")
    mnist = load_builtin("mnist", ImageFormat(size=28, channels=1), root)
    assert (len(mnist.train), len(mnist.test)) == (60_000, 10_000)
    assert mnist.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
