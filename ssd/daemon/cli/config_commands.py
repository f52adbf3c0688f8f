"""`config init|show|check` of a daemon: a file to begin with, what `run` would have, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssd.daemon.cli.exit_codes import EXIT_OK, EXIT_STORAGE, EXIT_USAGE
from ssd.daemon.cli.guard import complain
from ssd.daemon.cli.options import FORM
from ssd.daemon.printable import json_text
from ssd.files import write_atomically

if TYPE_CHECKING:
    from ssd.daemon.config_loading import Section

Json = Any
Options = Mapping[str, Any]
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_HEAD = """\
Configuration of {program}. Every setting is in here: those that are written have been chosen, all others keep the
default that stands behind their "#". Each can also be set by the environment ({variable}={value}) or a flag
(--set {setting}={value}), and a flag wins over the environment, the environment over this file.

    {program} config check --config FILE      what is wrong with it
    {program} config show --config FILE       what results"""


def _none(command: Callable[..., Any]) -> Callable[..., Any]:
    return command


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """What the three commands need to know of a daemon."""

    program: str
    """What it is called."""
    load: Callable[..., Section]
    """Options of `settings`, and `environ` -> the configuration. Raises the daemon's own error."""
    settings: Decorator
    """Adds the options that `load` takes, `config_path` among them."""
    begin: Callable[[Options], Section]
    """Options of `settings` -> what a new file holds: what flags say, and a few more values that a beginning needs."""
    problems: Callable[[Options], list[str]]
    """Options of `settings` and `check_options` -> a line for everything that is wrong with the configuration."""
    always: Collection[str]
    """`table.key`s that everybody looks for first: a new file has their values whether or not they are the defaults."""
    example: tuple[str, str]
    """A `table.key` and a value, for the new file's head."""
    check_help: str
    check_options: Decorator = _none
    """Adds options of `check`'s own."""


def config_group(daemon: Daemon) -> click.Group:
    """The commands."""

    @click.group()
    def config() -> None:
        """Begin, look at and check a configuration."""

    @config.command("init")
    @daemon.settings
    @click.option(
        "--out", type=click.Path(path_type=Path, dir_okay=False), default="-", help="The new file.  [default: stdout]"
    )  # fmt: skip
    @click.option("--force", is_flag=True, help="Replace an existing file.")
    def init(out: Path, force: bool, **options: Any) -> int:
        """Write a commented configuration file with every setting in it. What flags say stands in it."""
        if options["config_path"] is not None:
            raise click.UsageError("init begins a new file; `config show --config` prints an existing one")
        text = _example(daemon, daemon.begin(options))
        if str(out) == "-":
            click.echo(text, nl=False)
            return EXIT_OK
        if out.exists() and not force:
            raise click.UsageError(f"{out} exists: choose another name or add --force")
        try:
            write_atomically(out, text.encode())
        except OSError as error:
            complain(f"{out} cannot be written: {error.strerror}")
            return EXIT_STORAGE
        click.echo(f"wrote {out}; look through it, then: {daemon.program} config check --config {out}")
        return EXIT_OK

    @config.command("show")
    @daemon.settings
    @FORM
    def show(form: str, **options: Any) -> None:
        """Print every setting as `run` would have it: file, SSD_* environment and flags laid over the defaults."""
        from ssd.daemon.secrets_hidden import without_secrets
        from ssd.daemon.toml_text import document

        tree = without_secrets(daemon.load(**options).resolved())
        click.echo(json_text(tree) if form == "json" else document(tree))

    @config.command("check", help=daemon.check_help)
    @daemon.settings
    @daemon.check_options
    @FORM
    def check(form: str, **options: Any) -> int:
        problems = daemon.problems(options)
        if form == "json":
            click.echo(json_text({"ok": not problems, "problems": problems}))
        elif problems:
            complain("\n".join(problems))
        else:
            click.echo(f"{options['config_path'] or 'the configuration'} is sound")
        return EXIT_USAGE if problems else EXIT_OK

    return config


def _example(daemon: Daemon, config: Section) -> str:
    """A commented file that loads as this configuration."""
    from ssd.daemon.setting_text import example_file, tables

    root = type(config)
    values, defaults = config.resolved(), root().resolved()
    found = [table for table in tables(root) if table.settings]
    chosen = {
        setting.name
        for table in found
        for setting in table.settings
        if values[table.name][setting.key] != defaults[table.name][setting.key]
    }
    setting, value = daemon.example
    variable = f"SSD_{setting.replace('.', '_')}".upper()
    head = _HEAD.format(program=daemon.program, setting=setting, variable=variable, value=value)
    return example_file(head, found, values, chosen | set(daemon.always))
