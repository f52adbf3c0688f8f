"""A Dockerfile as data: its stages and their instructions, variables filled in; no second copy of what they say.

Reads what this project's Dockerfile is made of (Dockerfile reference of BuildKit's frontend 1): whole-line comments, line
continuations, shell and exec forms, `--from=` and `--chown=`, build arguments, and `$NAME`, `${NAME}`, `${NAME:-word}`
and `${NAME:+word}`. Anything else is an error rather than a guess. `RUN` keeps its variables: its shell fills them in.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

INSTRUCTIONS = frozenset(
    {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "RUN", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}
)


class DockerfileError(ValueError):
    """Something this reader does not know; the message begins with the line's number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruction:
    """One instruction of a stage; `words` is `("/bin/sh", "-c", text)` for a shell form."""

    line: int
    name: str
    words: tuple[str, ...]
    flags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """`FROM base AS name`; `instructions` are as written, but for what `filled` puts in."""

    name: str
    base: str
    instructions: tuple[Instruction, ...]

    def last(self, name: str) -> Instruction | None:
        """The one that counts where only one does: USER, CMD, WORKDIR."""
        return next((each for each in reversed(self.instructions) if each.name == name), None)


def parse(text: str, arguments: Mapping[str, str] | None = None) -> tuple[Stage, ...]:
    """Stages in order; `arguments` are `--build-arg`s.

    Raises:
        DockerfileError: an unknown instruction, flag or substitution, or one in a place where it cannot stand.
    """
    given = dict(arguments or {})
    outside: dict[str, str] = {}
    stages: list[Stage] = []
    inside: list[Instruction] = []
    known = set(given)
    for line, name, rest in _logical_lines(text):
        if name == "FROM":
            found = re.fullmatch(r"(\S+)(?:\s+AS\s+(\S+))?", rest, re.IGNORECASE)
            if found is None:
                raise DockerfileError(f"{line}: FROM {rest}")
            inside = []
            base = expand(found[1], outside, line)
            stages.append(Stage(name=found[2] or str(len(stages)), base=base, instructions=()))
            continue
        if name not in INSTRUCTIONS:
            raise DockerfileError(f"{line}: unknown instruction {name}")
        if not stages and name != "ARG":
            raise DockerfileError(f"{line}: {name} before the first FROM")
        if name == "ARG":
            key, equals, value = rest.partition("=")
            known.discard(key)
            if not stages:
                outside[key] = given.get(key, expand(value, outside, line))
                continue
            # Within a stage a bare name takes over what stands before the first FROM.
            value = given.get(key, value if equals else outside.get(key, ""))
            inside.append(_instruction(line, name, f"{key}={value}"))
        else:
            inside.append(_instruction(line, name, rest))
        last = stages[-1]
        stages[-1] = Stage(name=last.name, base=last.base, instructions=tuple(inside))
    if known:
        raise DockerfileError(f"0: no ARG takes {', '.join(sorted(known))}")
    if not stages:
        raise DockerfileError("0: no FROM")
    return tuple(stages)


def _logical_lines(text: str) -> Iterator[tuple[int, str, str]]:
    start, parts = 0, ""
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.lstrip().startswith("#"):
            continue
        if not line.strip():
            if parts:
                raise DockerfileError(f"{start}: goes on, and nothing follows")
            continue
        if not parts:
            start = number
        if line.rstrip().endswith("\\"):
            parts += line.rstrip()[:-1] + " "
            continue
        whole, parts = (parts + line).strip(), ""
        name, _, rest = whole.partition(" ")
        yield start, name.upper(), rest.strip()


def _instruction(line: int, name: str, rest: str) -> Instruction:
    flags: dict[str, str] = {}
    while found := re.match(r"--(\w+)=(\S+)\s+", rest):
        if name != "COPY" or found[1] not in ("from", "chown"):
            raise DockerfileError(f"{line}: {name} --{found[1]}")
        flags[found[1]] = found[2]
        rest = rest[found.end() :]
    if rest.startswith("["):
        words = tuple(json.loads(rest))
    elif name in ("RUN", "CMD", "ENTRYPOINT"):
        if "<<" in rest:
            raise DockerfileError(f"{line}: a here-document")
        words = ("/bin/sh", "-c", rest)
    elif name in ("ENV", "ARG"):
        words = tuple(re.findall(r'\w+=(?:"[^"]*"|\S)*', rest))
        if " ".join(words) != " ".join(rest.split()):
            raise DockerfileError(f"{line}: {name} {rest}")
    else:
        words = tuple(rest.split())
    return Instruction(line=line, name=name, words=words, flags=flags)


def assignment(word: str, variables: Mapping[str, str], line: int) -> tuple[str, str]:
    """Name and value of one word of ENV or ARG."""
    name, _, value = word.partition("=")
    return name, expand(value.replace('"', ""), variables, line)


def expand(text: str, variables: Mapping[str, str], line: int) -> str:
    """As the builder fills in variables outside RUN; an unset one is empty.

    Raises:
        DockerfileError: a substitution other than `:-` and `:+`.
    """

    def value(found: re.Match[str]) -> str:
        name, sign, word = found["plain"] or found["name"], found["sign"], found["word"] or ""
        held = variables.get(name, "")
        if sign == "-":
            return held or word
        return (word if held else "") if sign == "+" else held

    pattern = r"\$(?:(?P<plain>\w+)|\{(?P<name>\w+)(?::(?P<sign>[-+])(?P<word>[^{}$]*))?\})"
    if "$" in re.sub(pattern, "", text):
        raise DockerfileError(f"{line}: {text}")
    return re.sub(pattern, value, text)


def ignored(patterns: str) -> Callable[[PurePosixPath], bool]:
    """The rule of a `.dockerignore`: the last pattern that a path or one of its folders matches decides.

    Raises:
        DockerfileError: a pattern with anything but names, `*` and `**`.
    """
    rules: list[tuple[bool, re.Pattern[str]]] = []
    for number, line in enumerate(patterns.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        keeps, pattern = line.startswith("!"), line.strip().lstrip("!").strip("/")
        if re.search(r"[^\w./*-]", pattern):
            raise DockerfileError(f"{number}: {line}")
        expression = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*")
        rules.append((keeps, re.compile(expression.replace(r"\*", "[^/]*"))))

    def leaves_out(path: PurePosixPath) -> bool:
        places = [str(path), *(str(each) for each in path.parents if each.name)]
        out = False
        for keeps, rule in rules:
            if any(rule.fullmatch(place) for place in places):
                out = not keeps
        return out

    return leaves_out


def context(root: Path, patterns: str) -> list[PurePosixPath]:
    """Files below `root` that a build is sent, sorted; folders that are left out whole are not walked."""
    leaves_out = ignored(patterns)
    taken_back = [PurePosixPath(line[1:]) for line in patterns.splitlines() if line.startswith("!")]
    found: list[PurePosixPath] = []
    for folder, folders, files in os.walk(root):
        here = PurePosixPath(folder).relative_to(root)
        folders[:] = [
            each
            for each in folders
            if not leaves_out(here / each) or any(here / each in path.parents for path in taken_back)
        ]
        found += [here / each for each in files if not leaves_out(here / each)]
    return sorted(found)
