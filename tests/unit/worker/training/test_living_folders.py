"""Folders that change while a run goes on: looked through again, without the end of a client and without loss."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssd.data.images.errors import DataError, FolderChanged
from ssd.data.images.folder import FolderImages
from ssd.data.images.scan import scan
from ssd.data.images.source import ImageFormat
from ssd.methods.self_supervised import fed_align_uniform
from worker.training.child import LOOKS_AGAIN, TrainingProcess
from worker.training.client_data import ClientData

FORMAT = ImageFormat(size=16, channels=3)
DECLARATION = fed_align_uniform.create(
    {"image": {"size": 16, "channels": 3}, "model": {"name": "small"}}
).declare()


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        picture(tmp_path / "images" / "sub" / f"{number}.png", number)
    return tmp_path / "images"


def data_of(folder: Path, index: Path) -> ClientData:
    fields: dict[str, Any] = {
        "kind": "folder", "root": None, "partition": None, "probe": None, "index_dir": str(index),
        "folders": {"c": str(folder)}, "test_folders": {}, "classes": [],
    }  # fmt: skip
    return ClientData(fields, 4)


class TestReopening:
    def test_the_same_folder_is_opened_once(self, folder: Path, tmp_path: Path) -> None:
        data = data_of(folder, tmp_path / "index")
        assert data.open("c", DECLARATION) is data.open("c", DECLARATION)

    @pytest.mark.parametrize(
        ("change", "count"),
        [
            (lambda folder: picture(folder / "sub" / "new.png", 9), 7),
            (lambda folder: picture(folder / "other" / "new.png", 9), 7),
            (lambda folder: (folder / "sub" / "0.png").unlink(), 5),
            (lambda folder: (folder / "sub" / "0.png").rename(folder / "sub" / "renamed.png"), 6),
            (lambda folder: (folder / "sub").rename(folder / "moved"), 6),
        ],
        ids=["added", "added in a new folder", "removed", "renamed", "folder renamed"],
    )
    def test_one_that_gained_or_lost_files_is_looked_through_again(
        self, folder: Path, tmp_path: Path, change: Callable[[Path], object], count: int
    ) -> None:
        data = data_of(folder, tmp_path / "index")
        before = data.open("c", DECLARATION)
        change(folder)
        after = data.open("c", DECLARATION)
        assert after is not before
        assert isinstance(after, FolderImages)
        assert after.batch(range(count)).shape == (count, 3, after.format.size, after.format.size)
        assert data.open("c", DECLARATION) is after

    def test_a_file_written_anew_in_its_place_is_noticed_when_it_is_read(
        self, folder: Path, tmp_path: Path
    ) -> None:
        data = data_of(folder, tmp_path / "index")
        source = data.open("c", DECLARATION)
        assert isinstance(source, FolderImages)
        os.utime(folder / "sub" / "3.png", ns=(1, 1))
        with pytest.raises(FolderChanged, match=r"3\.png was changed after it was checked"):
            source.batch(range(6))
        data.forget()
        again = data.open("c", DECLARATION)
        assert isinstance(again, FolderImages)
        assert again.batch(range(6)).shape[0] == 6
        assert again.report.decoded == 1


class TestJobs:
    """A job that meets a changed folder is begun anew with what is there, a few times."""

    def process(self) -> TrainingProcess:
        return TrainingProcess(socket.socketpair()[0])

    @pytest.mark.parametrize("times", range(LOOKS_AGAIN + 1))
    def test_it_ends_well_when_the_folder_comes_to_rest(self, times: int) -> None:
        process, calls = self.process(), []

        def work(order: Any) -> dict[str, Any]:
            calls.append(order)
            if len(calls) <= times:
                raise FolderChanged("a.png was changed")
            return {"event": "finished"}

        assert process._with_living_folders({"job": 1}, work) == {"event": "finished"}
        assert len(calls) == times + 1

    def test_one_that_never_rests_fails_as_before(self) -> None:
        process, calls = self.process(), []

        def work(order: Any) -> dict[str, Any]:
            calls.append(order)
            raise FolderChanged("a.png was changed")

        with pytest.raises(DataError):
            process._with_living_folders({"job": 1}, work)
        assert len(calls) == LOOKS_AGAIN + 1

    def test_another_error_of_the_data_is_told_at_once(self) -> None:
        process, calls = self.process(), []

        def work(order: Any) -> dict[str, Any]:
            calls.append(order)
            raise DataError("no images")

        with pytest.raises(DataError, match="no images"):
            process._with_living_folders({"job": 1}, work)
        assert len(calls) == 1


class TestLongFirstLook:
    def test_what_was_checked_is_kept_when_it_is_cut_off(self, tmp_path: Path) -> None:
        """Every file takes a second; the process is gone after some of them, again and again."""
        root, index = tmp_path / "images", tmp_path / "index"
        for number in range(100):
            picture(root / f"{number:03}.png", number)
        seconds = [0.0]

        class Gone(BaseException):
            pass

        def slow(limit: float) -> Callable[[], float]:
            """A clock on which a batch of files takes a while, and which ends the process at its limit."""
            started = seconds[0]

            def now() -> float:
                seconds[0] += 4.0
                if seconds[0] - started > limit:
                    raise Gone
                return seconds[0]

            return now

        visits = 0
        while True:
            visits += 1
            assert visits < 20, "the scan begins anew every time"
            try:
                files, report = scan(root, index_dir=index, clock=slow(20.0))
                break
            except Gone:
                continue
        assert len(files) == 100
        assert visits > 1
        assert report.decoded < 100
        assert scan(root, index_dir=index)[1].decoded == 0
