"""`ssd-coordinator config init|show|check`: a file to begin with, what `run` would have, and what is wrong with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from coordinator.config.sections import CoordinatorConfig, refuse_changes
from coordinator.errors import ConfigInvalid, MethodRefused, RunConfigChanged, StorageFailed
from ssd.daemon.cli.exit_codes import EXIT_USAGE
from ssd.daemon.secrets_hidden import without_secrets
from ssd.daemon.setting_text import example_file, tables
from ssd.daemon.toml_text import document

Json = Any
Load = Callable[..., CoordinatorConfig]

_HEAD = """\
Configuration of ssd-coordinator. Every setting is in here: those that are written have been chosen, all others keep the
default that stands behind their "#". Each can also be set by the environment (SSD_ROUND_COHORT_SIZE=5) or a flag
(--set round.cohort_size=5), and a flag wins over the environment, the environment over this file.

    ssd-coordinator config check --config FILE      what is wrong with it
    ssd-coordinator config show --config FILE       what results"""
_ALWAYS = (
    "coordinator.listen", "coordinator.http_listen", "coordinator.state_dir", "transport.authority",
    "transport.certificate", "transport.key", "run.mode", "run.rounds", "run.seed", "run.expected_clients",
    "round.cohort_size", "round.deadline_seconds", "method.name", "method.config", "log.level",
)  # fmt: skip
"""What everybody looks for first is written whether or not it is the default."""
_PHOTOGRAPHS = {
    "image": {"size": 96, "channels": 3},
    "model": {"name": "resnet18"},
    "local_epochs": 2,
    "batch_size": 64,
    "lr": 0.05,
}
_EXPECTED_CLIENTS = 20
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
        if options["config_path"] is not None:
            raise click.UsageError("init begins a new file; `config show --config` prints an existing one")
        text = example(load_config(**options, environ={}))
        if str(out) == "-":
            click.echo(text, nl=False)
            return
        _write(out, text, force=force)
        click.echo(f"wrote {out}; look through it, then: ssd-coordinator config check --config {out}")

    @config.command("show")
    @settings
    @_FORM
    def show(form: str, **options: Any) -> None:
        """Print every setting as `run` would have it: file, SSD_* environment and flags laid over the defaults."""
        tree = without_secrets(load_config(**options).resolved())
        click.echo(json.dumps(tree, ensure_ascii=False) if form == "json" else document(tree))

    @config.command("check")
    @settings
    @click.option("--no-method", is_flag=True, help="Do not start the method to have its settings checked.")
    @_FORM
    def check(no_method: bool, form: str, **options: Any) -> int:
        """Say everything that is wrong with the configuration, its method's settings included; change nothing.

        Where the state directory has a run, settings that it does not accept any more are wrong too.
        """
        problems = _problems(lambda: load_config(**options), with_method=not no_method)
        if form == "json":
            click.echo(json.dumps({"ok": not problems, "problems": problems}, ensure_ascii=False))
            return EXIT_USAGE if problems else 0
        if problems:
            raise ConfigInvalid("\n".join(problems))
        click.echo(f"{options['config_path'] or 'the configuration'} is sound")
        return 0

    return config


def example(config: CoordinatorConfig) -> str:
    """A commented file that loads as this configuration, with a few more values that a beginning needs."""
    if config.method.name == "ssd" and not config.method.config:
        config = config.model_copy(
            update={"method": config.method.model_copy(update={"config": _PHOTOGRAPHS})}
        )
    if not config.run.clients and config.run.expected_clients is None:
        run = config.run.model_copy(
            update={"expected_clients": max(_EXPECTED_CLIENTS, config.round.cohort_size)}
        )
        config = config.model_copy(update={"run": run})
    values, defaults = config.resolved(), CoordinatorConfig().resolved()
    chosen = {
        f"{table}.{key}"
        for table, section in values.items()
        for key, value in section.items()
        if value != defaults[table][key]
    }
    return example_file(_HEAD, tables(CoordinatorConfig), values, chosen | set(_ALWAYS))


def _write(out: Path, text: str, *, force: bool) -> None:
    from ssd.files import write_atomically

    if out.exists() and not force:
        raise click.UsageError(f"{out} exists: choose another name or add --force")
    try:
        write_atomically(out, text.encode())
    except OSError as error:
        raise StorageFailed(f"{out} cannot be written: {error.strerror}") from error


def _problems(load_config: Callable[[], CoordinatorConfig], *, with_method: bool) -> list[str]:
    """One line for each; storage that fails is not among them, and raises."""
    try:
        config = load_config()
    except ConfigInvalid as error:
        return str(error).splitlines()
    found = []
    try:
        _fits_the_run(config)
    except RunConfigChanged as error:
        found += str(error).splitlines()
    try:
        if with_method:
            asyncio.run(_fits_the_method(config))
    except (ConfigInvalid, MethodRefused) as error:
        found += str(error).splitlines()
    return found


def _fits_the_run(config: CoordinatorConfig) -> None:
    from coordinator.store.journal.reading import read_run

    run = read_run(config.coordinator.state_dir)
    if run is not None:
        refuse_changes(run.config, config)


async def _fits_the_method(config: CoordinatorConfig) -> None:
    from coordinator.method_host.client import SubprocessMethodHost
    from coordinator.rounds.run_lifecycle import checked_declaration

    host = SubprocessMethodHost()
    try:
        await checked_declaration(config, host)
    finally:
        await host.close()
