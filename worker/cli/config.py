"""`ssd-worker config init|show|check`: a file to begin with, what `run` would have, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ssd.daemon.cli.exit_codes import EXIT_USAGE
from ssd.daemon.secrets_hidden import without_secrets
from ssd.daemon.setting_text import example_file, tables
from ssd.daemon.toml_text import document
from worker.config.sections import WorkerConfig
from worker.errors import ConfigInvalid, StorageFailed

Json = Any
Load = Callable[..., WorkerConfig]

_HEAD = """\
Configuration of ssd-worker. Every setting is in here: those that are written have been chosen, all others keep the
default that stands behind their "#". Each can also be set by the environment (SSD_WORKER_NAME=site-north) or a flag
(--set worker.name=site-north), and a flag wins over the environment, the environment over this file.

    ssd-worker config check --config FILE      what is wrong with it
    ssd-worker config show --config FILE       what results"""
_ALWAYS = (
    "worker.name", "worker.coordinator", "worker.state_dir", "worker.http_listen", "worker.device",
    "transport.identity_dir", "data.kind", "data.clients", "data.folders", "secure_aggregation.level", "log.level",
)  # fmt: skip
"""What everybody looks for first is written whether or not it is the default."""
_FOLDERS = {"client-a": Path("photographs/a"), "client-b": Path("photographs/b")}
_FORM = click.option(
    "--format", "form", type=click.Choice(["human", "json"]), default="human", show_default=True
)


def config_group(load_config: Load, settings: Callable[..., Any]) -> click.Group:
    """The commands.

    Args:
        load_config: options -> the configuration.
        settings: adds the options that `load_config` takes.
    """

    @click.group()
    def config() -> None:
        """Begin, look at and check a configuration."""

    @config.command("init")
    @settings
    @click.option(
        "--out", type=click.Path(path_type=Path, dir_okay=False), default="-", help="The new file.  [default: stdout]"
    )  # fmt: skip
    @click.option("--force", is_flag=True, help="Replace an existing file.")
    def init(out: Path, force: bool, **options: Any) -> None:
        """Write a commented configuration file with every setting in it. What flags say stands in it."""
        if options["path"] is not None:
            raise click.UsageError("init begins a new file; `config show --config` prints an existing one")
        text = example(_to_begin_with(load_config, options))
        if str(out) == "-":
            click.echo(text, nl=False)
            return
        _write(out, text, force=force)
        click.echo(f"wrote {out}; look through it, then: ssd-worker config check --config {out}")

    @config.command("show")
    @settings
    @_FORM
    def show(form: str, **options: Any) -> None:
        """Print every setting as `run` would have it: file, SSD_* environment and flags laid over the defaults."""
        tree = without_secrets(load_config(**options).resolved())
        click.echo(json.dumps(tree, ensure_ascii=False) if form == "json" else document(tree))

    @config.command("check")
    @settings
    @_FORM
    def check(form: str, **options: Any) -> int:
        """Say everything that is wrong with the configuration. `ssd-worker doctor` looks at what it names, too."""
        try:
            load_config(**options)
        except ConfigInvalid as error:
            if form == "human":
                raise
            click.echo(json.dumps({"ok": False, "problems": str(error).splitlines()}, ensure_ascii=False))
            return EXIT_USAGE
        sound = f"{options['path'] or 'the configuration'} is sound"
        click.echo(json.dumps({"ok": True, "problems": []}) if form == "json" else sound)
        return 0

    return config


def example(config: WorkerConfig) -> str:
    """A commented file that loads as this configuration."""
    values, defaults = config.resolved(), WorkerConfig().resolved()
    found = [table for table in tables(WorkerConfig) if table.settings]
    chosen = {
        setting.name
        for table in found
        for setting in table.settings
        if values[table.name][setting.key] != defaults[table.name][setting.key]
    }
    return example_file(_HEAD, found, values, chosen | set(_ALWAYS))


def _to_begin_with(load_config: Load, options: dict[str, Any]) -> WorkerConfig:
    """What flags say; where they say nothing of the data, folders of photographs to be replaced by one's own."""
    asked = tuple(options["assignments"])
    if not any(each.startswith("data.") for each in asked) and not options["partition"]:
        folders = ", ".join(f'{name} = "{path}"' for name, path in _FOLDERS.items())
        options = {
            **options,
            "assignments": (*asked, "data.kind=folder", f"data.folders={{ {folders} }}"),
            "clients": options["clients"] or "*",
        }
    return load_config(**options, environ={})


def _write(out: Path, text: str, *, force: bool) -> None:
    from ssd.files import write_atomically

    if out.exists() and not force:
        raise click.UsageError(f"{out} exists: choose another name or add --force")
    try:
        write_atomically(out, text.encode())
    except OSError as error:
        raise StorageFailed(f"{out} cannot be written: {error.strerror}") from error
