"""Zip and tar files are read like the folders they were made from, and what a stranger packed leads nowhere."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssd.data.containers import archive
from ssd.data.containers.open import container
from ssd.data.images.decode import Refusal
from ssd.data.images.errors import DataError, FolderChanged
from ssd.data.images.folder import FolderImages, FolderOptions, folder_probe
from ssd.data.images.source import ImageFormat
from ssd.data.open import DataConfig, open_client

FORMAT = ImageFormat(size=8, channels=3)


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    content = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(content).save(out, "PNG")
    return out.getvalue()


NAMES = ("cat/1.png", "cat/2.png", "dog/sub/3.png", "dog/4.png")
FILES = {name: picture(number) for number, name in enumerate(NAMES)}


def folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as made:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return path


MAKERS = {"photos.zip": zipped, "photos.tar": tarred}


@pytest.mark.parametrize("name", MAKERS)
class TestAsAFolder:
    def test_it_gives_the_same_bits_and_labels(self, tmp_path: Path, name: str) -> None:
        plain = FolderImages(folder(tmp_path / "plain", FILES), FORMAT, FolderOptions(labels=True))
        packed = FolderImages(
            MAKERS[name](tmp_path / name, FILES),
            FORMAT,
            FolderOptions(labels=True),
            index_dir=tmp_path / "index",
        )
        assert [each.relative for each in packed.files] == [each.relative for each in plain.files]
        assert packed.class_names == ("cat", "dog")
        assert plain.labels is not None
        assert packed.labels is not None
        assert torch.equal(packed.labels, plain.labels)
        assert torch.equal(packed.batch([3, 0, 2]), plain.batch([3, 0, 2]))

    def test_a_folder_around_everything_is_passed_over(self, tmp_path: Path, name: str) -> None:
        around = {f"holiday/{each}": content for each, content in FILES.items()}
        around["__MACOSX/holiday/._1.png"] = b"x"
        source = FolderImages(MAKERS[name](tmp_path / name, around), FORMAT, FolderOptions(labels=True))
        assert source.class_names == ("cat", "dog")
        assert source.report.litter == {"__MACOSX": 1}

    def test_other_files_hidden_ones_and_litter_are_counted_as_in_a_folder(
        self, tmp_path: Path, name: str
    ) -> None:
        files = {
            **FILES,
            "notes.txt": b"x",
            ".hidden.png": b"x",
            "cat/@eaDir/1.png": picture(9),
            "empty.png": b"",
        }
        source = FolderImages(MAKERS[name](tmp_path / name, files), FORMAT)
        assert len(source) == 4
        assert source.report.refused == {Refusal.EMPTY: 1}
        assert (source.report.others, source.report.litter) == ({".txt": 1}, {"@eaDir": 1})

    def test_a_second_look_decodes_nothing_until_a_member_is_another(self, tmp_path: Path, name: str) -> None:
        path = MAKERS[name](tmp_path / name, FILES)
        first = FolderImages(path, FORMAT, index_dir=tmp_path / "index")
        assert first.report.decoded == 4
        assert FolderImages(path, FORMAT, index_dir=tmp_path / "index").report.decoded == 0
        MAKERS[name](path, {**FILES, "cat/1.png": picture(77)})
        os.utime(path, ns=(1, first.report.folders[""] + 1_000_000))
        assert first.changed()
        with pytest.raises(FolderChanged, match=r"cat/1\.png was changed"):
            first.batch([0])
        again = FolderImages(path, FORMAT, index_dir=tmp_path / "index")
        assert again.report.decoded >= 1
        assert not torch.equal(again.batch([0]), FolderImages(path, FORMAT).batch([1]))

    def test_it_is_a_client_and_a_probe(self, tmp_path: Path, name: str) -> None:
        path = MAKERS[name](tmp_path / name, FILES)
        config = DataConfig(kind="folder", folders={"site": path}, probe=path)
        assert len(open_client(config, "site", FORMAT)) == 4
        assert len(folder_probe(path, FORMAT).train) == 2
        split = {f"{part}/{each}": content for part in ("train", "test") for each, content in FILES.items()}
        probe = folder_probe(MAKERS[name](tmp_path / f"split-{name}", split), FORMAT)
        assert (len(probe.train), len(probe.test)) == (4, 4)
        assert torch.equal(probe.train.batch([1]), probe.test.batch([1]))


class TestHostile:
    @pytest.mark.parametrize("name", MAKERS)
    def test_a_name_that_climbs_is_only_a_name(self, tmp_path: Path, name: str) -> None:
        inside = tmp_path / "inside"
        inside.mkdir()
        path = MAKERS[name](inside / name, {"../evil.png": picture(1), "/abs/evil.png": picture(2), **FILES})
        source = FolderImages(path, FORMAT)
        source.batch(range(len(source)))
        assert sorted(each.name for each in tmp_path.rglob("*")) == ["inside", name]

    def test_links_devices_and_sparse_files_of_a_tar_are_none(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret.png"
        secret.write_bytes(picture(5))
        path = tarred(tmp_path / "x.tar", FILES)
        with tarfile.open(path, "a") as made:
            for name, kind in (
                ("l.png", tarfile.SYMTYPE),
                ("h.png", tarfile.LNKTYPE),
                ("d.png", tarfile.CHRTYPE),
            ):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, str(secret)
                made.addfile(info)
        assert [each.relative for each in FolderImages(path, FORMAT).files] == sorted(FILES)

    def test_an_encrypted_or_huge_member_is_refused_unread(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 10_000)
        path = zipped(tmp_path / "x.zip", {**FILES, "bomb.png": b"\0" * 1_000_000})
        content = bytearray(path.read_bytes())
        at = content.index(b"PK\x01\x02")
        content[at + 8] |= 1  # the flag of an encrypted member, of the first in the directory
        path.write_bytes(content)
        report = FolderImages(path, FORMAT).report
        assert report.refused == {Refusal.TOO_LARGE: 1, Refusal.UNREADABLE: 1}
        assert report.accepted == 3

    def test_a_damaged_member_costs_itself(self, tmp_path: Path) -> None:
        path = zipped(tmp_path / "x.zip", FILES)
        content = bytearray(path.read_bytes())
        place = content.index(b"dog/4.png") + len("dog/4.png") + 200
        content[place] ^= 0xFF
        path.write_bytes(content)
        report = FolderImages(path, FORMAT).report
        assert (report.accepted, report.refused) == (3, {Refusal.CORRUPT: 1})

    def test_a_tar_that_is_cut_off_gives_what_is_whole(self, tmp_path: Path) -> None:
        path = tarred(tmp_path / "x.tar", FILES)
        whole = path.read_bytes()
        path.write_bytes(whole[: whole.index(b"dog/4.png") + 512 + 100])
        report = FolderImages(path, FORMAT).report
        assert report.accepted == 3
        assert sum(report.refused.values()) <= 1

    @pytest.mark.parametrize("name", ["x.zip", "x.tar"])
    def test_what_is_no_archive_says_so(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"<html>not found</html>" * 100)
        with pytest.raises(DataError, match="no zip or tar file that can be read"):
            FolderImages(tmp_path / name, FORMAT)
        with pytest.raises(DataError, match="cannot read the archive .*No such file"):
            FolderImages(tmp_path / f"absent-{name}", FORMAT)

    @pytest.mark.parametrize("name", ["x.tar.gz", "x.TGZ", "x.7z"])
    def test_a_compressed_tar_says_what_to_make_of_it(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(DataError, match=r"pack it as \.zip or \.tar"):
            container(tmp_path / name)

    def test_a_folder_called_like_an_archive_is_a_folder(self, tmp_path: Path) -> None:
        assert len(FolderImages(folder(tmp_path / "photos.zip", FILES), FORMAT)) == 4
