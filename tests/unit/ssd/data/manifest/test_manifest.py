"""A table of images: whose, of which class and split; what a row may not say; the same images as in folders."""

from __future__ import annotations

import datetime as dt
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from ssd.data.images.decode import Refusal
from ssd.data.images.errors import DataError, FolderChanged
from ssd.data.images.folder import FolderImages
from ssd.data.images.source import ImageFormat
from ssd.data.manifest.table import read_manifest
from ssd.data.open import DataConfig, open_client, open_client_test, open_probe
from worker.cli.doctor import examine
from worker.config.hosted_clients import has_client_tests, has_labels, hosted_clients
from worker.config.sections import load
from worker.errors import ConfigInvalid

FORMAT = ImageFormat(size=8, channels=3)
ROWS = [
    ("a/1.png", "cat", "north", "train"),
    ("a/2.png", "dog", "north", "train"),
    ("b/3.png", "dog", "south", "train"),
    ("b/4.png", "cat", "south", "train"),
    ("b/5.png", "cat", "south", "test"),
    ("a/6.png", "dog", "north", "test"),
    ("a/7.png", "dog", "north", "later"),
]
HEAD = ("path", "label", "client", "split")


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    content = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(content).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, (path, *_) in enumerate(ROWS):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(picture(number))
    return tmp_path


def table(root: Path, rows: list[tuple[str, ...]], head: tuple[str, ...] = HEAD, between: str = ",") -> Path:
    path = root / "images.csv"
    path.write_text("\n".join(between.join(row) for row in [head, *rows]) + "\n")
    return path


def config(path: Path, **more: object) -> DataConfig:
    return DataConfig(kind="manifest", manifest=path, **more)  # type: ignore[arg-type]


class TestWhoseImages:
    def test_each_client_has_its_rows_of_the_training_split(self, root: Path) -> None:
        given = config(table(root, ROWS), labels="column", classes=("dog", "cat"))
        north = open_client(given, "north", FORMAT)
        assert isinstance(north, FolderImages.__mro__[1])
        assert north.labels is not None
        assert north.labels.tolist() == [1, 0]
        test = open_client_test(given, "south", FORMAT)
        assert test is not None
        assert (len(test), test.format.size) == (1, 8)
        with pytest.raises(DataError, match=r"client 'nort' is not in the train rows.*did you mean north"):
            open_client(given, "nort", FORMAT)

    def test_the_bits_are_those_of_the_folder(self, root: Path) -> None:
        folder = FolderImages(root / "a", FORMAT)
        listed = open_client(config(table(root, ROWS)), "north", FORMAT)
        assert torch.equal(listed.batch([1, 0]), folder.batch([1, 0]))

    def test_the_probe_is_everybodys_rows_and_knows_whose(self, root: Path) -> None:
        probe = open_probe(config(table(root, ROWS), labels="column"), FORMAT)
        assert (len(probe.train), len(probe.test)) == (4, 2)
        assert probe.clients == {"north": [0, 1], "south": [2, 3]}
        assert probe.test.labels is not None
        assert probe.test.labels.tolist() == [1, 0]

    def test_columns_may_be_called_anything_and_missing_ones_have_a_meaning(self, root: Path) -> None:
        rows = [(path, client) for path, _, client, _ in ROWS]
        path = table(root, rows, ("file", "hospital"), between=";")
        by_hospital = config(path, columns={"path": "file", "client": "hospital"})
        assert len(open_client(by_hospital, "north", FORMAT)) == 4
        whole = config(path, columns={"path": "file"})
        assert len(open_client(whole, "whoever", FORMAT)) == 7

    def test_parquet_says_the_same(self, root: Path) -> None:
        columns = dict(zip(HEAD, zip(*ROWS, strict=True), strict=True))
        parquet.write_table(pa.table({**columns, "width": range(7)}), root / "images.parquet")
        from_csv, from_parquet = (
            read_manifest(path, {}) for path in (table(root, ROWS), root / "images.parquet")
        )
        assert from_csv.rows == from_parquet.rows

    def test_numbers_as_labels_are_ordered_as_numbers(self, root: Path) -> None:
        rows = [(path, str(label)) for (path, *_), label in zip(ROWS, (10, 9, 2, 10, 9, 2, 1), strict=True)]
        assert read_manifest(table(root, rows, ("path", "label")), {}).classes() == ("1", "2", "9", "10")

    def test_the_root_may_be_an_archive(self, root: Path) -> None:
        with zipfile.ZipFile(root / "all.zip", "w") as made:
            for path, *_ in ROWS:
                made.write(root / path, path)
        packed = open_client(config(table(root, ROWS), root=root / "all.zip"), "south", FORMAT)
        plain = open_client(config(table(root, ROWS)), "south", FORMAT)
        assert torch.equal(packed.batch([0, 1]), plain.batch([0, 1]))

    def test_clients_of_one_root_keep_indexes_of_their_own(self, root: Path) -> None:
        given = config(table(root, ROWS), index_dir=root / "index")
        for client in ("north", "south", "north", "south"):
            source = open_client(given, client, FORMAT)
        assert source.report.decoded == 0  # type: ignore[attr-defined]
        assert len(list((root / "index").iterdir())) == 2


class TestRowsThatCannotBeUsed:
    @pytest.mark.parametrize(
        "path",
        ["../secret.png", "/etc/secret.png", "a/../../x.png", "C:\\x.png", "a\\b.png", "a/\x1b[2J.png"],
    )
    def test_a_path_out_of_the_root_is_refused_with_its_row(self, root: Path, path: str) -> None:
        with pytest.raises(DataError, match=r"row 9: ") as raised:
            read_manifest(table(root, [*ROWS, (path, "cat", "north", "train")]), {})
        assert "\x1b" not in str(raised.value)

    def test_an_image_is_one_clients_once(self, root: Path) -> None:
        with pytest.raises(DataError, match=r"row 9: a/1\.png stands in row 2 already"):
            read_manifest(table(root, [*ROWS, ("a/1.png", "cat", "south", "train")]), {})

    def test_an_unknown_label_names_the_image_and_the_nearest_class(self, root: Path) -> None:
        given = config(table(root, ROWS), labels="column", classes=("cat", "dogs"))
        with pytest.raises(DataError, match=r"the label 'dog' of a/2\.png is none of .*did you mean dogs"):
            open_client(given, "north", FORMAT)

    def test_a_missing_column_names_the_nearest(self, root: Path) -> None:
        path = table(root, [("a/1.png",)], ("paths",))
        with pytest.raises(DataError, match=r"no column 'path'; did you mean paths"):
            read_manifest(path, {})
        with pytest.raises(DataError, match=r"no column 'label'|no label column"):
            open_client(config(table(root, [("a/1.png",)], ("path",)), labels="column"), "x", FORMAT)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("path,label\na/1.png\n", "row 2: 1 cells, the first row names 2"),
            ('path\n"a/1.png\n', "row"),
            ("path\n", "has no rows"),
            ("", "no column 'path'"),
            ("path\n \n", "row 2: no path"),
        ],
    )
    def test_a_table_that_is_none(self, root: Path, text: str, words: str) -> None:
        (root / "m.csv").write_text(text)
        with pytest.raises(DataError, match=words):
            read_manifest(root / "m.csv", {})

    def test_other_bytes(self, root: Path) -> None:
        (root / "m.csv").write_bytes(b"path\n\xff\xfe.png\n")
        with pytest.raises(DataError, match="CSV in UTF-8"):
            read_manifest(root / "m.csv", {})
        (root / "m.parquet").write_bytes(b"PAR1 nothing")
        with pytest.raises(DataError, match="no Parquet file that can be read"):
            read_manifest(root / "m.parquet", {})
        with pytest.raises(DataError, match="cannot read the manifest .*No such file"):
            read_manifest(root / "absent.csv", {})

    def test_a_file_that_is_missing_or_broken_costs_itself(self, root: Path) -> None:
        (root / "a" / "1.png").unlink()
        source = open_client(config(table(root, ROWS)), "north", FORMAT)
        assert len(source) == 1
        assert source.report.refused == {Refusal.UNREADABLE: 1}  # type: ignore[attr-defined]

    def test_labels_stay_with_their_images_when_one_is_left_out(self, root: Path) -> None:
        (root / "a" / "1.png").write_bytes(b"broken")
        source = open_client(config(table(root, ROWS), labels="column"), "north", FORMAT)
        assert source.labels is not None
        assert source.labels.tolist() == [1]


def test_a_table_or_image_written_anew_is_noticed(root: Path) -> None:
    path = table(root, ROWS)
    source = open_client(config(path), "north", FORMAT)
    assert not source.changed()  # type: ignore[attr-defined]
    (root / "a" / "1.png").write_bytes(picture(99) + b"more")
    with pytest.raises(FolderChanged):
        source.batch([0])
    table(root, ROWS[:1])
    os.utime(path, ns=(1, 1))
    assert source.changed()  # type: ignore[attr-defined]
    assert len(open_client(config(path), "north", FORMAT)) == 1


def test_with_a_byte_order_mark_and_tabs(root: Path) -> None:
    path = root / "m.tsv"
    path.write_text("path\tclient\na/1.png\tnorth\n", encoding="utf-8-sig")
    assert read_manifest(path, {}).clients() == ("north",)


class TestInTheWorkersConfiguration:
    def load(self, root: Path, **more: object) -> object:
        flags = {
            "transport.insecure": True,
            "data.kind": "manifest",
            "data.manifest": str(root / "images.csv"),
        }
        return load(None, {**flags, **more}, {})

    def test_clients_come_from_the_table(self, root: Path) -> None:
        table(root, ROWS)
        data = load(None, {
            "transport.insecure": True, "data.kind": "manifest", "data.manifest": str(root / "images.csv"),
            "data.clients": ["*"], "data.labels": "column", "data.classes": ["cat", "dog"],
        }, {}).data  # fmt: skip
        assert hosted_clients(data) == ("north", "south")
        assert has_labels(data)
        assert has_client_tests(data, ("south",))

    def test_names_that_are_no_ids_and_strangers_are_refused(self, root: Path) -> None:
        table(root, [("a/1.png", "x", "St. Mary", "train")])
        flags = {
            "transport.insecure": True,
            "data.kind": "manifest",
            "data.manifest": str(root / "images.csv"),
        }
        with pytest.raises(ConfigInvalid, match="'St. Mary' is no client id.*rename"):
            hosted_clients(load(None, {**flags, "data.clients": ["*"]}, {}).data)
        with pytest.raises(ConfigInvalid, match="has no rows of b"):
            hosted_clients(load(None, {**flags, "data.clients": ["b"]}, {}).data)
        table(root, [("a/1.png",)], ("path",))
        with pytest.raises(ConfigInvalid, match="no client column: name the one client"):
            hosted_clients(load(None, {**flags, "data.clients": ["*"]}, {}).data)

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            ({"data.kind": "manifest", "data.clients": ["a"]}, "needs the table of images"),
            ({"data.kind": "digits", "data.manifest": "x.csv"}, 'only kind "manifest" has a table'),
            (
                {"data.kind": "manifest", "data.manifest": "x.csv", "data.labels": "folders"},
                'has labels = "none" or "column"',
            ),
            ({"data.columns": {"paths": "file"}}, "did you mean path"),
        ],
    )
    def test_contradictions_are_said(self, flags: dict[str, object], words: str) -> None:
        with pytest.raises(ConfigInvalid, match=words):
            load(None, {"transport.insecure": True, **flags}, {})

    def test_the_doctor_looks_at_each_clients_images(self, root: Path) -> None:
        table(root, ROWS)
        (root / "b" / "3.png").write_bytes(b"broken")
        given = load(None, {
            "transport.insecure": True, "data.kind": "manifest", "data.manifest": str(root / "images.csv"),
            "data.clients": ["*"], "worker.state_dir": str(root / "state"),
        }, {})  # fmt: skip
        found = [each for each in examine(given, 0.5, dt.datetime.now(dt.UTC)) if each.check == "data"]
        assert [each.level.value for each in found] == ["ok", "warning"]
        assert "north: " in found[0].text
        assert "3.png: not an image" in found[1].text
