"""`ssd-coordinator config init|show|check`: what a new file holds, and what is wrong with one beyond its settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from coordinator.errors import ConfigInvalid, MethodRefused, RunConfigChanged
from ssd.daemon.cli import config_commands
from ssd.daemon.cli.config_commands import Daemon, Decorator, Options

if TYPE_CHECKING:
    from coordinator.config.sections import CoordinatorConfig

Load = Callable[..., "CoordinatorConfig"]

_ALWAYS = (
    "coordinator.listen", "coordinator.http_listen", "coordinator.state_dir", "transport.authority",
    "transport.certificate", "transport.key", "run.mode", "run.rounds", "run.seed", "run.expected_clients",
    "round.cohort_size", "round.deadline_seconds", "method.name", "method.config", "log.level",
)  # fmt: skip
_PHOTOGRAPHS = {
    "image": {"size": 96, "channels": 3},
    "model": {"name": "resnet18"},
    "local_epochs": 2,
    "batch_size": 64,
    "lr": 0.05,
}
_EXPECTED_CLIENTS = 20


def config_group(load_config: Load, settings: Decorator) -> click.Group:
    """The commands.

    Args:
        load_config: options -> the configuration.
        settings: adds the options that `load_config` takes.
    """
    return config_commands.config_group(
        Daemon(
            program="ssd-coordinator",
            load=load_config,
            settings=settings,
            begin=lambda options: _to_begin_with(load_config(**options, environ={})),
            problems=lambda options: _problems(load_config, options),
            always=_ALWAYS,
            example=("round.cohort_size", "5"),
            check_help=(
                "Say everything that is wrong with the configuration, its method's settings included; change nothing.\n\n"
                "Where the state directory has a run, settings that it does not accept any more are wrong too."
            ),
            check_options=click.option(
                "--no-method", is_flag=True, help="Do not start the method to have its settings checked."
            ),
        )
    )


def _to_begin_with(config: CoordinatorConfig) -> CoordinatorConfig:
    if config.method.name == "ssd" and not config.method.config:
        config = config.model_copy(
            update={"method": config.method.model_copy(update={"config": _PHOTOGRAPHS})}
        )
    if not config.run.clients and config.run.expected_clients is None:
        run = config.run.model_copy(
            update={"expected_clients": max(_EXPECTED_CLIENTS, config.round.cohort_size)}
        )
        config = config.model_copy(update={"run": run})
    return config


def _problems(load_config: Load, options: Options) -> list[str]:
    """One line for each; storage that fails is not among them, and raises."""
    import asyncio

    own = dict(options)
    with_method = not own.pop("no_method")
    try:
        config = load_config(**own)
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
    from coordinator.config.sections import refuse_changes
    from coordinator.store.journal.reading import read_run

    run = read_run(config.coordinator.state_dir)
    if run is not None:
        refuse_changes(run.config, config)


async def _fits_the_method(config: CoordinatorConfig) -> None:
    from coordinator.config.new_run import new_run_of
    from coordinator.method_host.client import SubprocessMethodHost
    from coordinator.rounds.run_lifecycle import checked_declaration

    host = SubprocessMethodHost()
    try:
        await checked_declaration(new_run_of(config), host)
    finally:
        await host.close()
