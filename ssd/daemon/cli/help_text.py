"""The end of every command's `--help`: examples that can be copied, then what its exit codes mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import click

Examples = Mapping[str, Sequence[str]]
"""Command below the root ("ca init"; "" is the root) -> what to type after the program's name."""


def commands(
    root: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with its path below the root, the root included."""
    yield path, root
    if isinstance(root, click.Group):
        for name, command in sorted(root.commands.items()):
            yield from commands(command, (*path, name))


def add_examples(root: click.Command, program: str, examples: Examples, codes: str) -> None:
    """Gives every command's help its examples and exit codes.

    Args:
        root: the command line.
        program: what it is called.
        examples: of every command that is no group; a group without any shows the first one of each of its commands.
        codes: a sentence that begins with "Exit codes:"; commands that have one of their own keep it.
    """
    for path, command in commands(root):
        told = command.epilog or codes
        if "Exit codes:" not in told:
            told = f"{told}\n\n{codes}"
        if "Example" not in told:
            told = _block(program, _own(path, command, examples)) + told
        command.epilog = told


def codes_sentence(codes: Mapping[int, str]) -> str:
    """What a program's exit codes mean, for `add_examples`."""
    return "Exit codes: " + ", ".join(f"{code} {meaning}" for code, meaning in codes.items()) + "."


def _own(path: tuple[str, ...], command: click.Command, examples: Examples) -> Sequence[str]:
    name = " ".join(path)
    if name in examples or not isinstance(command, click.Group):
        return examples.get(name, ())
    below = (" ".join(inner) for inner, each in commands(command, path) if not isinstance(each, click.Group))
    return [examples[inner][0] for inner in below if inner in examples]


def _block(program: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    shown = "".join(f"  {program} {line}\n" for line in lines)
    return f"\b\nExample{'s' if len(lines) > 1 else ''}:\n{shown}\n"
