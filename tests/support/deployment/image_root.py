"""An image's stages carried out in clean roots, as its Dockerfile has them: what comes out is a folder and its settings.

The base `python:X-slim-RELEASE` becomes a minimal Debian RELEASE, whose own Python must be X. Two things differ: the
image's Python lies in /usr/local and was built from source, and there are no layers.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from deployment.clean_root import PYTHON_OF, SYSTEM_PATH, command, debian, lent
from deployment.dockerfile import Instruction, Stage, assignment, context, expand


@dataclass(kw_only=True, slots=True)
class Image:
    """A root and what a container of it begins with."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": SYSTEM_PATH})
    user: str = "0:0"
    folder: str = "/"
    words: tuple[str, ...] = ()
    stop_signal: str = "SIGTERM"
    volumes: tuple[str, ...] = ()


def base_root(base: str, scratch: Path) -> Path:
    """The stand-in for `base`, made once below `scratch`.

    Raises:
        ValueError: no Debian release has that Python.
    """
    found = re.fullmatch(r"python:(\d+\.\d+)(?:\.\d+)?-slim-(\w+)", base)
    if found is None or PYTHON_OF.get(found[2]) != found[1]:
        pairs = ", ".join(f"python:{python}-slim-{release}" for release, python in PYTHON_OF.items())
        raise ValueError(f"nothing stands in for {base}: what there is: {pairs}")
    root = scratch / "base" / found[2]
    if not root.exists():
        making = root.with_suffix(".new")
        shutil.rmtree(making, ignore_errors=True)
        debian(found[2], ["ca-certificates", "python3", "python3-venv"], making)
        for name in ("python", "python3"):
            (making / "usr/local/bin" / name).symlink_to(f"/usr/bin/python{found[1]}")
        making.rename(root)
    return root


def build(
    stages: Sequence[Stage], sources: Path, ignore: str, scratch: Path, pip: Mapping[str, str]
) -> dict[str, Image]:
    """Every stage's image, by name; `sources` is the build's context and `ignore` its .dockerignore.

    Raises:
        ValueError: an instruction cannot be carried out here, or COPY finds nothing.
        subprocess.CalledProcessError: a RUN failed.
    """
    images: dict[str, Image] = {}
    files = context(sources, ignore)
    key = ""
    for stage in stages:
        root = scratch / "stage" / stage.name
        note = root.with_suffix(".key")
        key = _key(key, stage, sources, files, pip)
        made = note.exists() and note.read_text() == key
        if not made:
            note.unlink(missing_ok=True)
            shutil.rmtree(root, ignore_errors=True)
            root.parent.mkdir(parents=True, exist_ok=True)
            before = images.get(stage.base)
            copy_tree(before.root if before else base_root(stage.base, scratch), root)
        image = images[stage.name] = Image(root=root)
        arguments: dict[str, str] = {}
        for each in stage.instructions:
            variables = {**arguments, **image.environment}
            if made and each.name in ("RUN", "COPY"):
                continue
            if each.name == "RUN":
                print(f"{stage.name}: RUN {each.words[-1]}", flush=True)
                environment = {"HOME": "/root", **variables}
                with lent(root, pip=pip):
                    subprocess.run(
                        command(root, each.words, environment, folder=image.folder, user=image.user),
                        check=True, stdin=subprocess.DEVNULL,
                    )  # fmt: skip
            elif each.name == "COPY":
                words = [expand(word, variables, each.line) for word in each.words]
                if "from" in each.flags:
                    copy_from(images[each.flags["from"]], image, words)
                else:
                    copy_in(sources, [str(file) for file in files], image, words)
            elif each.name == "ARG":
                arguments.update(assignment(word, variables, each.line) for word in each.words)
            else:
                _settle(image, each, variables)
        note.write_text(key)
    return images


def _key(
    before: str, stage: Stage, sources: Path, files: Sequence[PurePosixPath], pip: Mapping[str, str]
) -> str:
    """A stage with the same key is not made again: what it says, what it copies, and the stages before it."""
    said = hashlib.sha256(repr((before, stage, sorted(pip.items()))).encode())
    for file in files:
        said.update(f"{file}\0".encode() + hashlib.sha256((sources / file).read_bytes()).digest())
    return said.hexdigest()


def _settle(image: Image, each: Instruction, variables: Mapping[str, str]) -> None:
    words = tuple(expand(word, variables, each.line) for word in each.words)
    match each.name:
        case "ENV":
            image.environment.update(assignment(word, variables, each.line) for word in each.words)
        case "WORKDIR":
            image.folder = str(Path(image.folder, words[0]))
            inside(image, image.folder).mkdir(parents=True, exist_ok=True)
        case "USER":
            image.user = words[0]
        case "VOLUME":
            image.volumes += words
        case "STOPSIGNAL":
            image.stop_signal = words[0]
        case "CMD":
            image.words = each.words
        case "EXPOSE":
            pass
        case _:
            raise ValueError(f"line {each.line}: {each.name} is not carried out")


def inside(image: Image, path: str) -> Path:
    """Where `path`, absolute or from the working directory, lies on this machine."""
    return image.root / str(Path(image.folder, path)).lstrip("/")


def copy_tree(source: Path | str, target: Path) -> None:
    """With owners, modes, times and links; the contents alone, into `target`, if `source` ends with "/."."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True)


def copy_from(source: Image, image: Image, words: Sequence[str]) -> None:
    """COPY --from of one file or folder; a folder's contents go into the target."""
    here, there = words
    place = inside(image, there)
    place.mkdir(parents=True, exist_ok=True)
    copy_tree(f"{source.root}/{here.lstrip('/')}/.", place)


def copy_in(sources: Path, files: Sequence[str], image: Image, words: Sequence[str]) -> None:
    """COPY from the context, owned by root; a folder's contents go into the target.

    Raises:
        ValueError: a source is not in the context, or several go to what is no folder.
    """
    *wanted, there = words
    if len(wanted) > 1 and not there.endswith("/"):
        raise ValueError(f"COPY {' '.join(words)}: several sources, and {there} does not end with a slash")
    for source in wanted:
        found = [file for file in files if file == source or file.startswith(f"{source}/")]
        if not found:
            raise ValueError(f"COPY {source}: not in the build's context")
        for file in found:
            relative = os.path.relpath(file, source) if file != source else Path(file).name
            target = inside(image, there)
            target = target / relative if file != source or there.endswith("/") else target
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(sources / file, target)
            os.chown(target, 0, 0)
