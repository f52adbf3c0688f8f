"""Images in a zip or tar file, read where they are.

Names inside are only names: nothing is written, so that one like `../x` leads nowhere. Links, devices and encrypted
members are no files. A single folder at the top that holds everything, as most tools make one, is passed over, so that
class folders are found below it as in a folder that was unpacked.
"""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from ssd.data.containers.protocol import go_on
from ssd.data.images.decode import Refusal, is_image_name
from ssd.data.images.errors import DataError
from ssd.data.images.walk import Walk, is_litter, printable

ZIP, TAR = (".zip",), (".tar",)
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
"""Archives whose members cannot be read without reading all that stand before them."""
MAX_MEMBER_BYTES = 512 << 20
"""A larger member is refused: it is held in memory while it is decoded."""
MAX_MEMBERS = 5_000_000
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, EOFError, ValueError,
)  # fmt: skip
"""What reading a damaged member of a zip file raises."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive."""

    name: str
    """As the archive has it."""
    size: int
    stamp: int
    """Its checksum (zip), or the archive's time and its place there (tar)."""
    offset: int = -1
    """Of its bytes in a tar file; -1: of a zip."""
    refusal: Refusal | None = None


class Archive:
    """A `Container` over a zip or an uncompressed tar file."""

    key = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._members: dict[str, Member] | None = None
        self._read_at = 0

    def walk(self, give_up: Callable[[], bool] = go_on) -> Walk:
        """Files by name in sorted order; what is hidden or litter is passed over as in a folder."""
        del give_up  # The list of names is one read.
        found = Walk()
        members = self._listed()
        found.folders[""] = self._read_at
        for name in sorted(members):
            parts = name.split("/")
            litter = next((part for part in parts if is_litter(part)), None)
            if litter is not None:
                found.litter[litter] += 1
            elif any(part.startswith(".") for part in parts):
                continue
            elif not is_image_name(name):
                found.others[os.path.splitext(name)[1].lower()] += 1
            elif members[name].refusal is not None:
                found.refused[name] = members[name].refusal or Refusal.UNREADABLE
            else:
                found.files.append((name, members[name].size, members[name].stamp))
        return found

    def folders(self) -> tuple[str, ...]:
        """The top-level folders, as in a folder that was unpacked."""
        try:
            names = {name.split("/")[0] for name in self._listed() if "/" in name}
        except DataError:
            return ()
        return tuple(sorted(each for each in names if not each.startswith(".") and not is_litter(each)))

    def stamp(self, relative: str) -> tuple[int, int]:
        """Size and checksum or place; raises OSError if the archive is another, or has no such member."""
        member = self._listed().get(relative)
        if member is None or os.stat(self.path).st_mtime_ns != self._read_at:
            raise FileNotFoundError(f"{self.path} is not what it was, or has no {printable(relative)}")
        return member.size, member.stamp

    def open(self, relative: str) -> BinaryIO:
        """The member's bytes, in memory; raises OSError."""
        member = self._listed().get(relative)
        if member is None:
            raise FileNotFoundError(f"{self.path} has no {printable(relative)}")
        if member.offset >= 0:
            with open(self.path, "rb") as file:
                file.seek(member.offset)
                return io.BytesIO(file.read(member.size))
        try:
            with self._zip.open(member.name) as file:
                return io.BytesIO(file.read(member.size))
        except _DAMAGED as error:
            # No number: the archive can be read, this member is damaged.
            raise OSError(f"{printable(relative)} in {self.path}: {error}") from error

    def changed(self, seen: Mapping[str, int]) -> bool:
        """Whether the archive was written anew."""
        try:
            return os.stat(self.path).st_mtime_ns != seen.get("", 0)
        except OSError:
            return True

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path)

    def _listed(self) -> dict[str, Member]:
        with self._lock:
            if self._members is None:
                try:
                    self._read_at = os.stat(self.path).st_mtime_ns
                    read = _zip_members if self.path.name.lower().endswith(ZIP) else _tar_members
                    self._members = _without_top(read(self.path))
                except OSError as error:
                    raise DataError(
                        f"cannot read the archive {self.path.absolute()}: {error.strerror or error}"
                    ) from error
                except (
                    zipfile.BadZipFile,
                    tarfile.TarError,
                    ValueError,
                    NotImplementedError,
                    EOFError,
                ) as error:
                    raise DataError(
                        f"{self.path.absolute()} is no zip or tar file that can be read ({error}): make it again, or unpack "
                        "it and name the folder"
                    ) from error
            return self._members


class Part:
    """A `Container` over one top-level folder of another."""

    def __init__(self, whole: Archive, folder: str) -> None:
        self._whole, self._prefix = whole, f"{folder}/"
        self.path = whole.path / folder
        self.key = ""

    def walk(self, give_up: Callable[[], bool] = go_on) -> Walk:
        """The files below the folder, named from there on."""
        found, cut = self._whole.walk(give_up), len(self._prefix)
        files = [
            (name[cut:], size, stamp) for name, size, stamp in found.files if name.startswith(self._prefix)
        ]
        refused = {name[cut:]: why for name, why in found.refused.items() if name.startswith(self._prefix)}
        return Walk(files=files, refused=refused, folders=found.folders)

    def folders(self) -> tuple[str, ...]:
        """The folders directly below it."""
        names = {name.split("/")[0] for name, _, _ in self.walk().files if "/" in name}
        return tuple(sorted(names))

    def stamp(self, relative: str) -> tuple[int, int]:
        """As of the whole."""
        return self._whole.stamp(self._prefix + relative)

    def open(self, relative: str) -> BinaryIO:
        """As of the whole."""
        return self._whole.open(self._prefix + relative)

    def changed(self, seen: Mapping[str, int]) -> bool:
        """As of the whole."""
        return self._whole.changed(seen)


def _zip_members(path: Path) -> dict[str, Member]:
    out = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            refusal = Refusal.UNREADABLE if info.flag_bits & 1 else _too_large(info.file_size)
            # Of two members of one name the last counts, as in an archive that was unpacked.
            out[info.filename] = Member(info.filename, info.file_size, info.CRC, refusal=refusal)
            _check_number(len(out))
    return out


def _tar_members(path: Path) -> dict[str, Member]:
    out: dict[str, Member] = {}
    at = os.stat(path).st_mtime_ns
    with tarfile.open(path, "r:") as archive:
        try:
            for info in archive:
                if info.isreg() and not info.issparse():
                    name, place = info.name.removeprefix("./"), info.offset_data
                    out[name] = Member(name, info.size, at ^ place, place, _too_large(info.size))
                    _check_number(len(out))
        except tarfile.ReadError:
            # Cut off: what stands before is whole.
            if not out:
                raise
    return out


def _too_large(size: int) -> Refusal | None:
    return Refusal.TOO_LARGE if size > MAX_MEMBER_BYTES else None


def _check_number(count: int) -> None:
    if count > MAX_MEMBERS:
        raise ValueError(f"it has more than {MAX_MEMBERS} members")


def _without_top(members: dict[str, Member]) -> dict[str, Member]:
    """Without a single folder that everything (but litter) lies in."""
    tops = {name.split("/")[0] for name in members if not is_litter(name.split("/")[0])}
    loose = any("/" not in name for name in members)
    if len(tops) != 1 or loose:
        return members
    top = f"{next(iter(tops))}/"
    return {name.removeprefix(top): member for name, member in members.items()}
