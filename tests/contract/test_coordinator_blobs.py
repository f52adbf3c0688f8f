"""Blobs and their readers keep the Behaviour lines of `coordinator.ports.blobs`; files survive kills."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coordinator.errors import BlobCorrupt, BlobMissing, StorageFailed
from coordinator.ports.blobs import BlobReader, Blobs
from coordinator.secure_aggregation.outbox import MessageReader
from coordinator.store.files import blobs as blobs_module
from coordinator.store.files.blobs import FileBlobs
from ssd.digest import CHUNK_BYTES, chunk_digests, digest_bytes
from ssd_wire.messages import BlobRef

SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 17]


def content(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()


def put(blobs: Blobs, data: bytes) -> BlobRef:
    writer = blobs.create()
    writer.write(data)
    return writer.finish()


@pytest.fixture(params=[FileBlobs])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    made: Blobs = request.param(tmp_path)
    return made


@pytest.fixture(params=["a blob", "a message"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[bytes], BlobReader]:
    """Makes a reader over some content."""

    def stored(data: bytes) -> BlobReader:
        blobs = FileBlobs(tmp_path)
        return blobs.open(put(blobs, data).digest)

    return stored if request.param == "a blob" else MessageReader


def files_below(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*") if found.is_file())


class TestBlobs:
    @pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES + 1])
    def test_what_is_lent_outlives_the_blob(self, blobs: Blobs, tmp_path: Path, size: int) -> None:
        data = content(size)
        info = put(blobs, data)
        path = tmp_path / "lent"
        blobs.lend(info.digest, path)
        blobs.remove(info.digest)
        assert path.read_bytes() == data
        path.unlink()

    def test_taking_back_what_was_lent_leaves_the_blob(self, blobs: Blobs, tmp_path: Path) -> None:
        info = put(blobs, b"content")
        blobs.lend(info.digest, tmp_path / "lent")
        (tmp_path / "lent").unlink()
        blobs.verify(info.digest)

    def test_an_absent_blob_cannot_be_lent(self, blobs: Blobs, tmp_path: Path) -> None:
        with pytest.raises(BlobMissing):
            blobs.lend("0" * 64, tmp_path / "lent")
        assert not (tmp_path / "lent").exists()

    @pytest.mark.parametrize("size", SIZES)
    def test_what_is_written_is_read_again(self, blobs: Blobs, size: int) -> None:
        data = content(size)
        writer = blobs.create()
        for start in range(0, size, 700_001):
            writer.write(memoryview(data)[start : start + 700_001])
        info = writer.finish()
        assert info == BlobRef(digest=digest_bytes(data), size=size)
        reader = blobs.open(info.digest)
        assert reader.info == info
        assert reader.read(0, size + 5) == data
        blobs.verify(info.digest)
        reader.close()

    def test_arrays_can_be_written(self, blobs: Blobs) -> None:
        values = np.arange(5, dtype="<f4")
        writer = blobs.create()
        writer.write(memoryview(values))
        assert writer.finish().digest == digest_bytes(values.tobytes())

    def test_nothing_is_visible_before_finish(self, blobs: Blobs) -> None:
        data = content(50)
        writer = blobs.create()
        writer.write(data)
        assert blobs.digests() == frozenset()
        assert not blobs.exists(digest_bytes(data))
        writer.finish()
        assert blobs.digests() == {digest_bytes(data)}
        assert blobs.exists(digest_bytes(data))

    def test_a_discarded_blob_never_was(self, blobs: Blobs) -> None:
        writer = blobs.create()
        writer.write(b"abc")
        writer.discard()
        writer.discard()
        assert blobs.digests() == frozenset()
        for call in (writer.finish, lambda: writer.write(b"d")):
            with pytest.raises(ValueError):
                call()

    def test_finish_can_be_repeated_and_ends_writing(self, blobs: Blobs) -> None:
        writer = blobs.create()
        writer.write(b"abc")
        info = writer.finish()
        assert writer.finish() == info
        with pytest.raises(ValueError):
            writer.write(b"d")
        writer.discard()
        assert blobs.exists(info.digest)

    def test_the_same_content_is_one_blob(self, blobs: Blobs) -> None:
        assert put(blobs, b"abc") == put(blobs, b"abc")
        assert len(blobs.digests()) == 1

    def test_writers_do_not_disturb_each_other(self, blobs: Blobs) -> None:
        first, second = blobs.create(), blobs.create()
        first.write(b"abc")
        second.write(b"xyz")
        assert {first.finish().digest, second.finish().digest} == {digest_bytes(b"abc"), digest_bytes(b"xyz")}

    @pytest.mark.parametrize(
        "digest", ["ab" * 32, "", "short", "AB" * 32, "../../../etc/passwd", "a/" + "b" * 62]
    )
    def test_a_missing_blob_is_said_to_be_missing(self, blobs: Blobs, digest: str) -> None:
        assert not blobs.exists(digest)
        blobs.remove(digest)
        for call in (blobs.open, blobs.verify):
            with pytest.raises(BlobMissing):
                call(digest)

    def test_removing_is_repeatable_and_touches_no_other_blob(self, blobs: Blobs) -> None:
        kept, gone = put(blobs, content(10)).digest, put(blobs, content(20)).digest
        for _ in range(2):
            blobs.remove(gone)
            assert blobs.digests() == {kept}
        assert (blobs.exists(kept), blobs.exists(gone)) == (True, False)

    def test_an_open_blob_outlives_its_removal(self, blobs: Blobs) -> None:
        data = content(CHUNK_BYTES + 9)
        digest = put(blobs, data).digest
        reader = blobs.open(digest)
        blobs.remove(digest)
        blobs.remove(digest)
        assert not blobs.exists(digest)
        assert reader.read(0, len(data)) == data
        mapped = reader.map()
        reader.close()
        assert mapped.tobytes() == data

    def test_it_knows_how_much_room_is_left(self, blobs: Blobs) -> None:
        assert blobs.free_bytes() > 0


class TestReaders:
    @pytest.mark.parametrize("size", SIZES)
    def test_the_whole_of_it_is_there(self, opened: Callable[[bytes], BlobReader], size: int) -> None:
        data = content(size)
        reader = opened(data)
        assert reader.info == BlobRef(digest=digest_bytes(data), size=size)
        assert reader.chunk_digests == chunk_digests(data)
        assert reader.read(0, size + 5) == data
        mapped = reader.map()
        assert (mapped.dtype, mapped.shape, mapped.flags.writeable) == (np.dtype(np.uint8), (size,), False)
        reader.close()
        assert mapped.tobytes() == data

    def test_any_part_can_be_read(self, opened: Callable[[bytes], BlobReader]) -> None:
        data = content(CHUNK_BYTES + 100)
        reader = opened(data)
        assert reader.read(CHUNK_BYTES - 3, 7) == data[CHUNK_BYTES - 3 : CHUNK_BYTES + 4]
        assert reader.read(len(data), 10) == b""
        for offset, size in ((-1, 1), (0, -1), (len(data) + 1, 1)):
            with pytest.raises(ValueError):
                reader.read(offset, size)
        reader.close()


class TestFiles:
    def test_blobs_survive_reopening(self, tmp_path: Path) -> None:
        data = content(CHUNK_BYTES + 1)
        digest = put(FileBlobs(tmp_path), data).digest
        again = FileBlobs(tmp_path)
        assert again.digests() == {digest}
        again.verify(digest)

    def test_the_layout_is_the_documented_one(self, tmp_path: Path) -> None:
        digest = put(FileBlobs(tmp_path), b"abc").digest
        assert files_below(tmp_path) == [
            f"blobs/{digest[:2]}/{digest}",
            f"blobs/{digest[:2]}/{digest}.chunks",
        ]

    def test_a_damaged_chunk_is_named(self, tmp_path: Path) -> None:
        blobs = FileBlobs(tmp_path)
        digest = put(blobs, content(3 * CHUNK_BYTES)).digest
        path = tmp_path / "blobs" / digest[:2] / digest
        with path.open("r+b") as file:
            file.seek(CHUNK_BYTES + 10)
            byte = file.read(1)
            file.seek(CHUNK_BYTES + 10)
            file.write(bytes([byte[0] ^ 0x80]))
        with pytest.raises(BlobCorrupt, match=rf"{path}.*chunk 1 \(from byte {CHUNK_BYTES}\)"):
            blobs.verify(digest)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda path: os.truncate(path, 100),
            lambda path: path.write_bytes(b""),
            lambda path: path.with_name(path.name + ".chunks").unlink(),
            lambda path: path.with_name(path.name + ".chunks").write_bytes(b"x" * 64),
            lambda path: path.with_name(path.name + ".chunks").write_bytes(b"x" * 63),
        ],
    )
    def test_a_truncated_or_exchanged_file_is_noticed_when_opened(
        self, tmp_path: Path, damage: Callable[[Path], None]
    ) -> None:
        blobs = FileBlobs(tmp_path)
        digest = put(blobs, content(CHUNK_BYTES + 100)).digest
        damage(tmp_path / "blobs" / digest[:2] / digest)
        with pytest.raises(BlobCorrupt, match="restore the state directory"):
            blobs.open(digest)

    def test_writing_a_damaged_blob_again_heals_it(self, tmp_path: Path) -> None:
        blobs, data = FileBlobs(tmp_path), content(CHUNK_BYTES)
        digest = put(blobs, data).digest
        (tmp_path / "blobs" / digest[:2] / digest).write_bytes(b"broken")
        put(blobs, data)
        blobs.verify(digest)

    @pytest.mark.parametrize(
        ("moment", "visible"),
        [("write", 0), ("fsync", 0), ("first rename", 0), ("second rename", 0), ("directory fsync", 1)],
    )
    def test_a_killed_writer_leaves_all_or_nothing(self, tmp_path: Path, moment: str, visible: int) -> None:
        """Should: a blob that is there is whole. Should not: a temporary file, a lone list, half a blob."""
        script = f"""
import os, pathlib, signal, sys
from coordinator.store.files import blobs as module
moment, calls = {moment!r}, []
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
rename = pathlib.Path.replace
def replace(self, target):
    calls.append(target)
    if moment == "first rename" or (moment == "second rename" and len(calls) == 2):
        die()
    return rename(self, target)
pathlib.Path.replace = replace
blobs = module.FileBlobs(pathlib.Path({str(tmp_path)!r}))
writer = blobs.create()
writer.write(b"x" * 3000000)
if moment == "write":
    die()
if moment == "fsync":
    module.os.fsync = die
if moment == "directory fsync":
    module.sync_folder = lambda path: die() if path != blobs.root else None
writer.finish()
"""
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        blobs = FileBlobs(tmp_path)
        found = blobs.digests()
        assert len(found) == visible
        for digest in found:
            blobs.verify(digest)
        assert len(files_below(tmp_path)) == 2 * visible
        assert put(blobs, b"x" * 3_000_000).size == 3_000_000

    def test_everything_is_synced_before_it_is_renamed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blobs = FileBlobs(tmp_path)
        events: list[str] = []
        replace, fsync = Path.replace, os.fsync

        def noting_replace(path: Path, target: Path) -> Path:
            events.append(f"rename {target.suffix or 'data'}")
            return replace(path, target)

        def noting_fsync(descriptor: int) -> None:
            kind = "directory" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"
            events.append(f"fsync {kind}")
            fsync(descriptor)

        monkeypatch.setattr(Path, "replace", noting_replace)
        monkeypatch.setattr(blobs_module.os, "fsync", noting_fsync)
        put(blobs, b"abc")
        assert events == [
            "fsync file",
            "fsync file",
            "fsync directory",  # the new two-letter directory
            "rename .chunks",
            "rename data",
            "fsync directory",
        ]

    def test_a_full_disk_fails_as_storage_and_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blobs = FileBlobs(tmp_path)

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        writer = blobs.create()
        writer.write(b"abc")
        monkeypatch.setattr(blobs_module.os, "write", full)
        with pytest.raises(StorageFailed, match="disk is full: free space"):
            writer.write(b"def")
        other = blobs.create()
        monkeypatch.setattr(blobs_module.os, "fsync", full)
        with pytest.raises(StorageFailed, match="disk is full"):
            other.finish()
        assert files_below(tmp_path) == []
        monkeypatch.undo()
        put(blobs, b"abc")

    def test_a_place_that_cannot_be_written_says_so(self, tmp_path: Path) -> None:
        (tmp_path / "blobs").write_text("in the way")
        with pytest.raises(StorageFailed, match="blobs"):
            FileBlobs(tmp_path)


def test_without_hard_links_a_copy_is_lent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = FileBlobs(tmp_path)
    info = put(blobs, b"content")

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    blobs.lend(info.digest, tmp_path / "lent")
    assert (tmp_path / "lent").read_bytes() == b"content"


def test_lending_onto_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = FileBlobs(tmp_path)
    info = put(blobs, b"content")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(StorageFailed, match="the disk is full"):
        blobs.lend(info.digest, tmp_path / "lent")
