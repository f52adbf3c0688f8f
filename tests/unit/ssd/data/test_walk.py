"""What a folder's walk leaves alone is counted by kind, and a drive's own litter is no image and no class."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd.data.images import decode as decoding
from ssd.data.images.folder import FolderImages, folder_probe
from ssd.data.images.scan import scan
from ssd.data.images.source import ImageFormat
from ssd.data.images.walk import LITTER, left_alone, walk, worth_a_warning
from ssd.data.open import DataConfig, open_client
from worker.cli.doctor_images import gather_folder, judge_folder

FORMAT = ImageFormat(size=16, channels=3)


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(content).save(path)
    return path


@pytest.fixture
def without_heic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where the extra is not installed."""
    monkeypatch.setattr(decoding, "_heic", lambda: False)
    decoding._formats.cache_clear()
    yield
    decoding._formats.cache_clear()


class TestWhatIsLeftAlone:
    @pytest.fixture
    def phone(self, tmp_path: Path) -> Path:
        folder = tmp_path / "phone"
        for number in range(5):
            picture(folder / f"{number}.png", number)
        for number in range(60):
            (folder / f"IMG_{number}.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
        shutil.copy(folder / "0.png", folder / "DSC0001")
        (folder / "notes.txt").write_text("words")
        return folder

    def test_it_is_said_by_ending_and_number_with_what_to_do(
        self, phone: Path, without_heic: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            source = open_client(DataConfig(kind="folder", folders={"phone": phone}), "phone", FORMAT)
        assert len(source) == 5
        assert "62 other files (60 .heic, 1 without an ending, 1 .txt)" in caplog.text
        assert "pip install '.[heic]'" in caplog.text

    def test_the_doctor_does_not_call_that_all_good(self, phone: Path, without_heic: None) -> None:
        (found,) = judge_folder(gather_folder("phone", phone, 20.0))
        assert found.level.value == "warning"
        assert "5 images, 5 looked at; 62 other files (60 .heic, 1 without an ending, 1 .txt)" in found.text

    def test_texts_alone_are_no_warning(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        picture(tmp_path / "x" / "a.png")
        (tmp_path / "x" / "readme.md").write_text("words")
        with caplog.at_level(logging.WARNING):
            open_client(DataConfig(kind="folder", folders={"x": tmp_path / "x"}), "x", FORMAT)
        assert caplog.text == ""
        (found,) = judge_folder(gather_folder("x", tmp_path / "x", 20.0))
        assert (found.level.value, found.text.endswith("1 looked at; 1 other file (1 .md), all good")) == (
            "ok",
            True,
        )

    def test_many_kinds_are_a_few_words_and_strange_endings_stay_printable(self) -> None:
        others = {f".{letter}": 1 for letter in "abcdefgh"} | {".\x1b[2J" + "x" * 300: 9}
        said = left_alone(others, {})
        assert said.startswith("17 other files (9 .\\x1b[2Jxxx")
        assert said.endswith("4 of other kinds)")
        assert len(said) < 120
        assert said.isprintable()
        assert left_alone({}, {}) == ""
        assert not worth_a_warning({".txt": 3})
        assert worth_a_warning({".dcm": 1})


class TestHeic:
    def test_photographs_are_read_where_the_extra_is_installed(self, tmp_path: Path) -> None:
        pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
        flat = Image.new("RGB", (64, 48), (200, 30, 90))
        pillow_heif.from_pillow(flat).save(tmp_path / "a.heic", quality=90)
        source = FolderImages(tmp_path, FORMAT)
        np.testing.assert_allclose(source.batch([0])[0].float().mean((1, 2)), [200, 30, 90], atol=4)

    def test_a_broken_one_is_refused(self, tmp_path: Path) -> None:
        pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
        picture(tmp_path / "a.png")
        (tmp_path / "broken.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\xff" * 300)
        assert sum(scan(tmp_path)[1].refused.values()) == 1


class TestLitter:
    def drive(self, root: Path) -> Path:
        """Twelve photographs of two classes on a network drive that made thumbnails of them."""
        for name in ("cats", "dogs"):
            for number in range(6):
                original = picture(root / name / f"{number}.png", number)
                for place in (root / name / "@eaDir" / f"{number}.png", root / "@eaDir" / f"{name}-{number}"):
                    place.mkdir(parents=True)
                    shutil.copy(original, place / "SYNOPHOTO_THUMB_XL.jpg")
        for name in ("Thumbs.db", "cats/Thumbs.db", "desktop.ini", ".DS_Store"):
            (root / name).write_bytes(b"x")
        picture(root / "__MACOSX" / "cats" / "._0.png")
        picture(root / "#recycle" / "old.png")
        return root

    def test_it_is_neither_images_nor_classes_and_it_is_counted(self, tmp_path: Path) -> None:
        root = self.drive(tmp_path / "probe")
        probe = folder_probe(root, FORMAT)
        assert len(probe.train) + len(probe.test) == 12
        assert probe.train.labels is not None
        assert set(probe.train.labels.tolist()) == {0, 1}
        report = scan(root)[1]
        assert report.litter == {"@eaDir": 3, "Thumbs.db": 2, "desktop.ini": 1, "__MACOSX": 1, "#recycle": 1}
        assert (
            "8 skipped as thumbnails or a drive's own (#recycle, @eaDir, Thumbs.db, __MACOSX, desktop.ini)"
            in str(report)
        )

    @pytest.mark.parametrize("name", sorted(LITTER))
    def test_whatever_the_case_of_its_letters(self, tmp_path: Path, name: str) -> None:
        picture(tmp_path / name.upper() / "a.png")
        picture(tmp_path / "mine.png")
        assert [file[0] for file in walk(tmp_path).files] == ["mine.png"]

    def test_names_that_only_begin_like_litter_are_ones_own(self, tmp_path: Path) -> None:
        for name in ("thumbs", "desktop", "recycle", "@eadirs", "lost and found"):
            picture(tmp_path / name / "a.png")
        assert len(walk(tmp_path).files) == 5


def test_an_index_of_an_earlier_version_is_made_again(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    scan(tmp_path / "images", index_dir=tmp_path / "index")
    (file,) = (tmp_path / "index").iterdir()
    value = json.loads(file.read_text())
    value["version"], value["files"] = 1, {"a.png": value["files"]["a.png"][:5]}
    file.write_text(json.dumps(value))
    assert scan(tmp_path / "images", index_dir=tmp_path / "index")[1].decoded == 1
    assert scan(tmp_path / "images", index_dir=tmp_path / "index")[1].decoded == 0


def test_a_walk_may_be_given_up(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / name / "a.png")
    answers = iter([False, False, True])
    found = walk(tmp_path, lambda: next(answers))
    assert (len(found.files), found.complete) == (1, False)
