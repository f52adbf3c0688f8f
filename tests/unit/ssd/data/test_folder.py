"""A folder of photographs as engineers have them: nested, odd names, broken files, links, other things between."""

import io
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssd.data.images import walk as walking
from ssd.data.images.decode import Refusal
from ssd.data.images.errors import DataError
from ssd.data.images.folder import FolderImages, FolderOptions, folder_probe
from ssd.data.images.scan import scan
from ssd.data.images.source import ImageFormat
from ssd.data.images.walk import printable

FORMAT = ImageFormat(size=16, channels=3)


def picture(path: Path, shade: int = 0, size: tuple[int, int] = (24, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 255 - shade, 7)).save(path)
    return path


def names(source: FolderImages) -> list[str]:
    return [file.relative for file in source.files]


def test_sub_folders_are_searched_and_the_order_is_that_of_the_paths(tmp_path: Path) -> None:
    for name in ("b/2.png", "a.png", "b/10.PNG", "B.jpeg", "ü/x.webp", "a/deep/er/y.bmp", "a b.gif"):
        picture(tmp_path / name)
    assert names(FolderImages(tmp_path, FORMAT)) == sorted(
        ["b/2.png", "a.png", "b/10.PNG", "B.jpeg", "ü/x.webp", "a/deep/er/y.bmp", "a b.gif"]
    )


def test_a_batch_is_the_centre_square_at_the_size_with_its_margin(tmp_path: Path) -> None:
    for number, shade in enumerate((10, 20, 30)):
        picture(tmp_path / f"{number}.png", shade)
    source = FolderImages(tmp_path, FORMAT)
    assert source.format == ImageFormat(size=18, channels=3)
    assert source.requested == FORMAT
    assert source.labels is None
    batch = source.batch([2, 0, 2])
    assert batch.shape == (3, 3, 18, 18)
    assert batch.dtype == torch.uint8
    assert batch[:, 0, 9, 9].tolist() == [30, 10, 30]
    exact = FolderImages(tmp_path, ImageFormat(size=16, channels=1), FolderOptions(margin=1.0))
    assert exact.batch([0]).shape == (1, 1, 16, 16)
    assert exact.batch([]).shape == (0, 1, 16, 16)


def test_the_pixels_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(tmp_path / f"{number}.jpg")
    one = FolderImages(tmp_path, FORMAT, FolderOptions(threads=1))
    three = FolderImages(tmp_path, FORMAT, FolderOptions(threads=3))
    order = [5, 1, 11, 1, 0, 7]
    assert torch.equal(one.batch(order), three.batch(order))
    assert torch.equal(one.batch(order), one.batch(order))


def test_files_that_cannot_be_used_are_left_out_and_reported(tmp_path: Path) -> None:
    good = picture(tmp_path / "good.png")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "notes.jpg").write_text("not an image")
    whole = picture(tmp_path / "x.jpg", size=(90, 90)).read_bytes()
    (tmp_path / "x.jpg").unlink()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    picture(tmp_path / "thumbnail.png", size=(60, 15))
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / ".hidden.png").write_bytes(good.read_bytes())
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "z.png").write_bytes(good.read_bytes())
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    os.mkfifo(tmp_path / "pipe.png")
    picture(tmp_path / "huge.png", size=(100, 100))
    source = FolderImages(tmp_path, FORMAT, FolderOptions(max_pixels=9_999))
    assert names(source) == ["good.png"]
    assert source.report.refused == {
        Refusal.EMPTY: 1,
        Refusal.NOT_AN_IMAGE: 1,
        Refusal.CORRUPT: 1,
        Refusal.TOO_MANY_PIXELS: 1,
        Refusal.TOO_SMALL: 1,
        Refusal.UNREADABLE: 2,
        Refusal.NOT_A_FILE: 1,
    }
    assert source.report.examples[Refusal.UNREADABLE] == ("dangling.png", "self.png")
    assert source.report.other_files == 1
    assert "1 corrupt or truncated (first: cut.jpg)" in str(source.report)


def test_links_are_followed_and_no_folder_is_entered_twice(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    picture(outside / "far.png")
    root = tmp_path / "root"
    picture(root / "a" / "near.png")
    (root / "a" / "loop").symlink_to(root)
    (root / "b").symlink_to(outside)
    (root / "c").symlink_to(outside)
    (root / "single.png").symlink_to(outside / "far.png")
    assert names(FolderImages(root, FORMAT)) == ["a/near.png", "b/far.png", "single.png"]


def test_odd_names_are_names(tmp_path: Path) -> None:
    odd = [
        "ünï/çödé 😀.png",
        "line\nbreak.png",
        "quote'\".png",
        "%s{0}.png",
        "-rf.png",
        "a.b.c.png",
        "\u202e.png",
    ]
    for name in odd:
        picture(tmp_path / name)
    raw = os.fsdecode(b"latin1-\xe9.png")
    picture(tmp_path / "plain.png").rename(tmp_path / raw)
    index_dir = tmp_path.parent / f"{tmp_path.name}-index"
    source = FolderImages(tmp_path, FORMAT, index_dir=index_dir)
    assert names(source) == sorted([*odd, raw])
    assert source.batch(range(len(source))).shape[0] == len(odd) + 1
    assert names(FolderImages(tmp_path, FORMAT, index_dir=index_dir)) == names(source)
    assert printable(raw) == "latin1-\\udce9.png"
    assert printable("line\nbreak") == "line\\nbreak"
    str(source.report).encode("utf-8")


def test_a_folder_that_cannot_be_read_is_reported_and_the_rest_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "open" / "a.png")
    picture(tmp_path / "closed" / "b.png")
    real = os.scandir

    def guarded(path: Path) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(walking.os, "scandir", guarded)
    source = FolderImages(tmp_path, FORMAT)
    assert names(source) == ["open/a.png"]
    assert source.report.unreadable_folders == ("closed",)
    assert "1 folders could not be read (first: closed)" in str(source.report)


def test_a_folder_without_usable_images_says_what_is_there_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no usable image: 0 images under .*short side of at least 16"):
        FolderImages(tmp_path, FORMAT)
    picture(tmp_path / "tiny.png", size=(9, 9))
    (tmp_path / "notes.jpg").write_text("x")
    with pytest.raises(
        DataError, match=r"1 not an image \(first: notes.jpg\); 1 too small \(first: tiny.png\)"
    ):
        FolderImages(tmp_path, FORMAT)
    assert len(FolderImages(tmp_path, FORMAT, FolderOptions(min_side=9))) == 1


def test_a_root_that_is_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the image folder .*absent"):
        FolderImages(tmp_path / "absent", FORMAT)
    with pytest.raises(DataError, match=r"cannot read the image folder .*file\.png"):
        FolderImages(picture(tmp_path / "file.png"), FORMAT)
    with pytest.raises(DataError, match="at least 1"):
        FolderImages(tmp_path, FORMAT, FolderOptions(margin=0.9))


class TestIndex:
    def test_a_file_is_checked_once_and_again_only_when_it_changed(self, tmp_path: Path) -> None:
        root, index_dir = tmp_path / "images", tmp_path / "index"
        for number in range(4):
            picture(root / f"{number}.png", number)
        (root / "bad.png").write_text("bad")
        first, report = scan(root, index_dir=index_dir)
        assert (len(first), report.decoded) == (4, 5)
        again, report = scan(root, index_dir=index_dir, min_side=18)
        assert (again, report.decoded) == (first, 0)
        assert report.refused == {Refusal.NOT_AN_IMAGE: 1}
        picture(root / "2.png", size=(300, 300))
        picture(root / "new.png")
        changed, report = scan(root, index_dir=index_dir)
        assert (len(changed), report.decoded) == (5, 2)
        (root / "0.png").unlink()
        assert len(scan(root, index_dir=index_dir)[0]) == 4

    def test_one_index_serves_every_image_format(self, tmp_path: Path) -> None:
        root, index_dir = tmp_path / "images", tmp_path / "index"
        picture(root / "a.png", size=(20, 20))
        picture(root / "b.png", size=(90, 90))
        assert len(FolderImages(root, FORMAT, index_dir=index_dir)) == 2
        large = FolderImages(root, ImageFormat(size=64, channels=1), index_dir=index_dir)
        assert (names(large), large.report.decoded) == (["b.png"], 0)

    def test_the_pixel_limit_may_change_between_scans(self, tmp_path: Path) -> None:
        root, index_dir = tmp_path / "images", tmp_path / "index"
        picture(root / "a.png", size=(100, 100))
        assert scan(root, index_dir=index_dir, max_pixels=100)[1].refused == {Refusal.TOO_MANY_PIXELS: 1}
        assert scan(root, index_dir=index_dir)[1].accepted == 1
        assert scan(root, index_dir=index_dir, max_pixels=100)[1].refused == {Refusal.TOO_MANY_PIXELS: 1}

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: "",
            lambda text: text[:-20],
            lambda text: "[]",
            lambda text: json.dumps({**json.loads(text), "version": 99}),
            lambda text: json.dumps({**json.loads(text), "pillow": "0.1"}),
            lambda text: json.dumps({**json.loads(text), "files": {"a.png": [1, 2]}}),
            lambda text: json.dumps({**json.loads(text), "files": {"a.png": [1, 2, "NO_SUCH", 1, 1]}}),
            lambda text: json.dumps({**json.loads(text), "files": {"a.png": ["1", 2, None, 1, 1]}}),
            lambda text: json.dumps({**json.loads(text), "files": []}),
        ],
    )
    def test_a_damaged_or_foreign_index_is_made_again(
        self, tmp_path: Path, damage: Callable[[Any], Any]
    ) -> None:
        root, index_dir = tmp_path / "images", tmp_path / "index"
        picture(root / "a.png")
        scan(root, index_dir=index_dir)
        (index,) = index_dir.iterdir()
        index.write_text(damage(index.read_text()))
        files, report = scan(root, index_dir=index_dir)
        assert (len(files), report.decoded) == (1, 1)
        assert scan(root, index_dir=index_dir)[1].decoded == 0

    def test_two_folders_of_the_same_name_have_their_own_index(self, tmp_path: Path) -> None:
        index_dir = tmp_path / "index"
        for parent in ("one", "two"):
            picture(tmp_path / parent / "images" / "a.png")
            assert scan(tmp_path / parent / "images", index_dir=index_dir)[1].decoded == 1
        assert len(list(index_dir.iterdir())) == 2


@pytest.mark.parametrize("change", ["other image", "touched", "removed", "damaged"])
def test_a_file_changed_while_a_client_trains_stops_it_instead_of_changing_the_data(
    tmp_path: Path, change: str
) -> None:
    path = picture(tmp_path / "a.png")
    source = FolderImages(tmp_path, FORMAT)
    if change == "other image":
        picture(path, shade=200, size=(50, 50))
    elif change == "touched":
        os.utime(path, ns=(1, 1))
    elif change == "removed":
        path.unlink()
    else:
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match=r"a\.png was changed after it was checked"):
        source.batch([0])


def test_sub_folder_names_are_labels(tmp_path: Path) -> None:
    for name in ("dog/1.png", "cat/kittens/2.png", "cat/1.png", "loose.png"):
        picture(tmp_path / name)
    (tmp_path / "empty").mkdir()
    source = FolderImages(tmp_path, FORMAT, FolderOptions(labels=True))
    assert source.class_names == ("cat", "dog")
    assert names(source) == ["cat/1.png", "cat/kittens/2.png", "dog/1.png"]
    assert source.labels.tolist() == [0, 0, 1]
    assert source.labels.dtype == torch.int64
    assert source.report.refused == {Refusal.UNLABELLED: 1}
    given = FolderImages(tmp_path, FORMAT, FolderOptions(labels=True), class_names=("zebra", "dog"))
    assert given.class_names == ("zebra", "dog")
    assert given.labels.tolist() == [1]


class TestProbe:
    def test_given_train_and_test_folders_are_the_split(self, tmp_path: Path) -> None:
        for part, count in (("train", 3), ("test", 2)):
            for label in ("cat", "dog"):
                for number in range(count):
                    picture(tmp_path / part / label / f"{number}.png", shade=40 * (label == "dog"))
        probe = folder_probe(tmp_path, FORMAT)
        assert probe.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert probe.test.labels.tolist() == [0, 0, 1, 1]
        assert probe.train.format == FORMAT
        assert probe.name == tmp_path.name
        picture(tmp_path / "test" / "bird" / "1.png")
        with pytest.raises(DataError, match=r"'bird' .*has no images in .*train"):
            folder_probe(tmp_path, FORMAT)

    def test_class_folders_are_split_by_seed_and_class(self, tmp_path: Path) -> None:
        for label, count in (("cat", 10), ("dog", 5), ("rare", 1), ("pair", 2)):
            for number in range(count):
                picture(tmp_path / label / f"{number}.png")
        probe = folder_probe(tmp_path, FORMAT, seed=3)
        assert torch.bincount(probe.train.labels).tolist() == [8, 4, 1, 1]
        assert torch.bincount(probe.test.labels, minlength=4).tolist() == [2, 1, 1, 0]
        same = folder_probe(tmp_path, FORMAT, seed=3)
        assert torch.equal(same.test.batch([0, 1]), probe.test.batch([0, 1]))
        splits = {
            tuple(folder_probe(tmp_path, FORMAT, seed=seed).test._indices.tolist()) for seed in range(6)
        }
        assert len(splits) > 1

    @pytest.mark.parametrize(
        "layout", [["a.png"], ["cat/1.png", "cat/2.png"], ["cat/1.png", "dog/1.png"], []]
    )
    def test_too_little_to_probe_with_is_said(self, tmp_path: Path, layout: list[str]) -> None:
        for name in layout:
            picture(tmp_path / name)
        with pytest.raises(DataError, match=r"class|one image"):
            folder_probe(tmp_path, FORMAT)

    def test_a_class_may_be_called_train(self, tmp_path: Path) -> None:
        for label in ("train", "plane"):
            for number in range(3):
                picture(tmp_path / label / f"{number}.png")
        assert folder_probe(tmp_path, FORMAT).train.labels.tolist() == [0, 0, 1, 1]


def peak_resident_mib(work: Callable[[], object]) -> float:
    """Peak resident memory of this process while `work` runs, above what it had before."""
    reset = Path("/proc/self/clear_refs")
    status = Path("/proc/self/status")

    def high_water() -> float:
        if not status.exists():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    if reset.exists():
        reset.write_text("5")
    before = high_water()
    work()
    return high_water() - before


def test_hundreds_of_photographs_are_streamed_in_bounded_memory(tmp_path: Path) -> None:
    """300 images of 1000 x 1000 are 858 MiB decoded; two in the making are a few."""
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8))
    photo = coarse.resize((1000, 1000), Image.Resampling.BILINEAR)
    for name, count in (("jpeg", 270), ("png", 30)):
        buffer = io.BytesIO()
        photo.save(buffer, format=name, **({"compress_level": 1} if name == "png" else {}))
        for number in range(count):
            (tmp_path / f"{number}.{name}").write_bytes(buffer.getvalue())
    seen = []

    def work() -> None:
        source = FolderImages(tmp_path, ImageFormat(size=64, channels=3))
        seen.extend(len(source.batch(range(start, start + 50))) for start in range(0, 300, 50))

    assert peak_resident_mib(work) < 100
    assert sum(seen) == 300
