"""Reads a manifest: CSV (comma, semicolon or tab) or Parquet (extra `parquet`), one row an image.

Columns are named by the configuration: `path` (always), `label`, `client`, `split`. Without a client column every row is
everybody's who asks; without a split column every row is for training. Other columns are not looked at. Nothing of a
row chooses a place outside of the root.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from ssd.daemon.cli.extras import install
from ssd.daemon.printable import printable
from ssd.daemon.suggest import nearest
from ssd.data.images.errors import DataError

COLUMNS = ("path", "label", "client", "split")
TRAIN, TEST = "train", "test"
_DELIMITERS = ",;\t"
_MAX_ROWS = 20_000_000
_MAX_PATH = 4096


@dataclass(frozen=True, slots=True)
class Row:
    """One image."""

    path: str
    """Below the root, with forward slashes."""
    label: str
    client: str
    split: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checked table.

    Behaviour: no two rows have one path.
    """

    file: Path
    changed_at: int
    """Modification time in ns when it was read."""
    rows: tuple[Row, ...]
    has: frozenset[str]
    """Which of `COLUMNS` it has."""

    def clients(self) -> tuple[str, ...]:
        """Everybody who has a row, sorted."""
        return tuple(sorted({row.client for row in self.rows} - {""}))

    def of(self, client: str | None, split: str) -> list[Row]:
        """The rows of a client (None: of all) in one split."""
        mine = client is None or "client" not in self.has
        return [row for row in self.rows if row.split == split and (mine or row.client == client)]

    def classes(self) -> tuple[str, ...]:
        """Every label, sorted: as numbers if all are whole numbers."""
        labels = {row.label for row in self.rows} - {""}
        numbers = all(
            each.removeprefix("-").isascii() and each.removeprefix("-").isdigit() for each in labels
        )
        return tuple(sorted(labels, key=int if numbers else str))


def read_manifest(path: Path, columns: Mapping[str, str]) -> Manifest:
    """The table, read again only when the file changes.

    Args:
        path: a file whose name ends in .csv, .tsv, .txt or .parquet.
        columns: which of `COLUMNS` is called what there; what is missing is called as here.

    Raises:
        DataError: it cannot be read, a column is missing, or a row cannot be used; with the row's number.
    """
    try:
        changed_at = path.stat().st_mtime_ns
    except OSError as error:
        raise DataError(f"cannot read the manifest {path.absolute()}: {error.strerror or error}") from error
    return _read(path, changed_at, tuple(sorted(columns.items())))


@lru_cache(maxsize=4)
def _read(path: Path, changed_at: int, columns: tuple[tuple[str, str], ...]) -> Manifest:
    called = {each: dict(columns).get(each, each) for each in COLUMNS}
    given = dict(columns).keys()
    header, table = _parquet(path, called) if path.suffix.lower() == ".parquet" else _csv(path)
    has = frozenset(each for each in COLUMNS if called[each] in header)
    for each in COLUMNS:
        if each not in has and (each == "path" or each in given):
            raise DataError(
                f"the manifest {path} has no column {called[each]!r}{nearest(called[each], header)}; it has "
                f"{', '.join(printable(name)[:40] for name in header[:20])}. [data.columns] {each} names the column"
            )
    places = {each: header.index(called[each]) for each in has}
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for number, cells in table:
        cell = {each: str(cells[at]).strip() for each, at in places.items()}
        problem = _problem(cell["path"])
        first = seen.setdefault(cell["path"], number)
        if first != number:
            problem = f"{printable(cell['path'])[:80]} stands in row {first} already; an image is one client's, once"
        if problem or len(rows) == _MAX_ROWS:
            raise DataError(
                f"the manifest {path}, row {number}: {problem or f'more than {_MAX_ROWS} images'}"
            )
        rows.append(
            Row(cell["path"], cell.get("label", ""), cell.get("client", ""), cell.get("split", "") or TRAIN)
        )
    if not rows:
        raise DataError(f"the manifest {path} has no rows")
    return Manifest(path, changed_at, tuple(rows), has)


def _problem(path: str) -> str:
    """What is wrong with an image's path; empty: nothing."""
    if not path:
        return "no path"
    if len(path) > _MAX_PATH or not path.isprintable():
        return "a path of more than 4,096 characters, or with ones that cannot be printed"
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or path[1:2] == ":":
        return (
            f"{printable(path)[:80]} is not below the root: write paths relative to [data] root, with forward slashes "
            "and without .."
        )
    return ""


def _csv(path: Path) -> tuple[list[str], Iterator[tuple[int, Sequence[Any]]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the manifest {path}: {error}; it has to be CSV in UTF-8") from error
    first = text.split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(text.splitlines(), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise DataError(f"the manifest {path}, row 1: {error}") from error

    def rows() -> Iterator[tuple[int, Sequence[str]]]:
        try:
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise DataError(
                        f"the manifest {path}, row {reader.line_num}: {len(cells)} cells, the first row names {len(header)}"
                    )
                yield reader.line_num, cells
        except csv.Error as error:
            raise DataError(f"the manifest {path}, row {reader.line_num}: {error}") from error

    return header, rows()


def _parquet(path: Path, called: Mapping[str, str]) -> tuple[list[str], Iterator[tuple[int, Sequence[Any]]]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DataError(f"a Parquet manifest needs pyarrow: {install('parquet')}, or write CSV") from error
    try:
        file = parquet.ParquetFile(path)
        header = [str(name) for name in file.schema_arrow.names]
        wanted = [name for name in header if name in called.values()]
        batches = file.iter_batches(columns=wanted)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} is no Parquet file that can be read: {error}") from error

    def rows() -> Iterator[tuple[int, Sequence[Any]]]:
        number = 1
        try:
            for batch in batches:
                for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    known = dict(zip(wanted, cells, strict=True))
                    yield number, ["" if known.get(name) is None else known[name] for name in header]
        except (ArrowException, OSError) as error:
            raise DataError(f"{path} is no Parquet file that can be read: {error}") from error

    return header, rows()
