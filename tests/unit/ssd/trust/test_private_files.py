"""Keys are private from the instant their files exist."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssd.trust.private_files import create_private, make_private_folder, replace_private


@pytest.fixture(params=[0o000, 0o022, 0o377], ids=oct)
def _any_mask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("_any_mask")
def test_files_and_folders_are_their_owners_alone_under_any_process_mask(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    make_private_folder(folder)
    create_private(folder / "a.key", b"a")
    replace_private(folder / "b.key", b"b")
    replace_private(folder / "b.key", b"c")
    assert (mode(folder), mode(folder / "a.key"), mode(folder / "b.key")) == (0o700, 0o600, 0o600)
    assert (folder / "b.key").read_bytes() == b"c"
    assert sorted(path.name for path in folder.iterdir()) == ["a.key", "b.key"]


def test_a_file_is_never_readable_by_others_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = os.fsync

    def look(handle: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(handle).st_mode))
        real(handle)

    before = os.umask(0)
    monkeypatch.setattr(os, "fsync", look)
    create_private(tmp_path / "a.key", b"secret")
    os.umask(before)
    assert seen == [0o600]


def test_a_new_file_replaces_nothing_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "a.key").write_bytes(b"old")
    (tmp_path / "link.key").symlink_to(tmp_path / "elsewhere")
    for name in ("a.key", "link.key"):
        with pytest.raises(FileExistsError):
            create_private(tmp_path / name, b"new")
    assert (tmp_path / "a.key").read_bytes() == b"old"
    assert not (tmp_path / "elsewhere").exists()


def test_a_replacement_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "worker.pem"
    replace_private(path, b"old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_private(path, b"new")
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["worker.pem"]


def test_a_folder_that_is_there_keeps_its_permissions(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o750)
    folder.chmod(0o750)
    make_private_folder(folder)
    assert mode(folder) == 0o750
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "file")
