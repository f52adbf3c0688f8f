"""`ssd-coordinator policy draft|sign|verify`: what a federation agrees to run, signed with the registry's key.

`draft` asks the method what it declares under a coordinator's configuration; the other two work on files alone, on the
machine of whoever has the key.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coordinator.cli.ca.registry import read_file, refusing
from coordinator.errors import AuthorityRefused
from ssd.daemon.printable import printable

if TYPE_CHECKING:
    from coordinator.config.sections import CoordinatorConfig
    from ssd.trust.policy.federation_policy import FederationPolicy
    from ssd.updates.declaration import Declaration

Json = Any
Load = Callable[..., "CoordinatorConfig"]
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_FILE = click.Path(path_type=Path, dir_okay=False)


def policy_group(load_config: Load, settings: Decorator) -> click.Group:
    """The commands.

    Args:
        load_config: options -> the configuration.
        settings: adds the options that `load_config` takes.
    """

    @click.group()
    def policy() -> None:
        """The federation's policy: which methods and settings its workers take part in at level active."""

    @policy.command()
    @click.argument("draft", type=_FILE)
    @click.option("--federation", required=True, help="Its name, as `ssd-coordinator ca init` was told.")
    @settings
    def draft(draft: Path, federation: str, **options: Any) -> None:
        """Write DRAFT: a policy that accepts the run of a configuration and nothing else. Widen it by hand."""
        import asyncio

        from ssd.files import write_atomically

        if draft.exists():
            raise AuthorityRefused(f"{draft} is there already: edit it, or choose another name")
        config = load_config(**options)
        declared = asyncio.run(_declared(config))
        body = refusing(lambda: _drafted(config, declared, federation))
        write_atomically(draft, (json.dumps(body, indent=2, sort_keys=True) + "\n").encode())
        click.echo(f"{draft}: read it, widen what may vary, and sign it with `ssd-coordinator policy sign`")

    policy.add_command(sign_policy)
    policy.add_command(verify)
    return policy


@click.command("sign")
@click.argument("draft", type=_FILE)
@click.option("--key", "key_file", type=_FILE, required=True, help="What `registry keygen` made.")
@click.option("--out", type=_FILE, required=True, help="The signed file; one that is there is continued.")
def sign_policy(draft: Path, key_file: Path, out: Path) -> None:
    """Sign DRAFT as the next version of the file OUT."""
    from ssd.trust.policy.federation_policy import decode, encode, policy_of
    from ssd.trust.private_files import replace_private
    from ssd.trust.signing import public_hex, read_key_file

    key = refusing(lambda: read_key_file(key_file))
    drafted = refusing(lambda: policy_of(_json(draft)))
    version = 1
    if out.exists():
        version = refusing(lambda: decode(read_file(out), public_hex(key), drafted.federation)).version + 1
    signed = replace(drafted, version=version, issued_at=int(time.time()))
    replace_private(out, encode(signed, key))
    click.echo(f"{out}: version {version}, signed by {public_hex(key)}\n{_summary(signed)}")


@click.command()
@click.argument("file", type=_FILE)
@click.option("--signer", required=True, help="The signer's public key, 64 hex digits.")
@click.option("--federation", required=True, help="Whose policy it has to be.")
def verify(file: Path, signer: str, federation: str) -> None:
    """Check signature and content of a signed FILE, and say what it accepts."""
    from ssd.trust.policy.federation_policy import decode

    found = refusing(lambda: decode(read_file(file), signer, federation))
    click.echo(f"good: version {found.version}\n{_summary(found)}")


async def _declared(config: CoordinatorConfig) -> Declaration:
    from coordinator.config.new_run import new_run_of
    from coordinator.method_host.client import SubprocessMethodHost
    from coordinator.rounds.run_lifecycle import checked_declaration

    host = SubprocessMethodHost()
    try:
        return await checked_declaration(new_run_of(config), host)
    finally:
        await host.close()


def _drafted(config: CoordinatorConfig, declared: Declaration, federation: str) -> dict[str, Json]:
    from coordinator.config.derived import max_client_weight
    from ssd.trust.policy.federation_policy import FederationPolicy, MethodClause, body_of, flat

    own = config.privacy
    noisy = own.mechanism != "off"
    clause = MethodClause(
        name=declared.method,
        version=declared.version,
        settings={name: [value] for name, value in flat(declared.config).items()},
    )
    return body_of(
        FederationPolicy(
            federation=federation,
            version=1,
            issued_at=1,
            methods=(clause,),
            max_rounds=config.run.rounds,
            max_client_weight=min(config.secure_aggregation.max_client_weight, max_client_weight(config)),
            mechanism=own.mechanism,
            min_noise_multiplier=own.noise_multiplier if noisy else 0.0,
            max_clip_norm=own.clip_norm if noisy else None,
            max_delta=own.delta if noisy else None,
        )
    )


def _json(path: Path) -> Json:
    try:
        return json.loads(read_file(path))
    except (ValueError, RecursionError) as error:
        raise AuthorityRefused(f"{path} is no JSON: {printable(str(error)[:200])}") from error


def _summary(found: FederationPolicy) -> str:
    methods = ", ".join(f"{each.name} (version {each.version})" for each in found.methods) or "none"
    noise = f"at least {found.mechanism}, noise {found.min_noise_multiplier:g}"
    return (
        f"methods: {methods}\nrounds: at most {found.max_rounds}; weight of a client: at most"
        f" {found.max_client_weight}; privacy: {noise}"
    )
