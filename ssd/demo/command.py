"""The command `ssd demo`."""

from __future__ import annotations

from pathlib import Path

import click

from ssd.daemon.cli.exit_codes import EXIT_OK, EXIT_REFUSED
from ssd.daemon.cli.guard import complain
from ssd.daemon.cli.terminal import CODES, console


@click.command("demo", epilog=CODES)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/demo"), show_default=True,
              help="Where results, logs and configurations go; an earlier demo's are replaced.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(min=1), default=20, show_default=True, help="Per method.")
@click.option("--seed", type=click.IntRange(min=0, max=2**31 - 1), default=1, show_default=True,
              help="Of the split, weights, batches, views and labels.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 10), default=4, show_default=True,
              help="Processes that train; one more evaluates.")  # fmt: skip
@click.option("--secure-aggregation", type=click.Choice(["off", "passive", "active"]), default="off",
              show_default=True, help="Mask every worker's updates: the coordinator sees only sums.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep the daemons' state directories too.")
def demo_command(out: Path, rounds: int, seed: int, workers: int, secure_aggregation: str, keep: bool) -> int:
    """Run a whole federation on this machine, twice: FedAlignUniform, then SSD.

    Ten clients hold a Dirichlet(0.1) split of scikit-learn's digits; a coordinator and workers train one encoder
    over gRPC, without labels. Prints what the encoders are worth beside an untrained one.
    """
    from ssd.demo.place import PlaceRefused
    from ssd.demo.run import run_demo
    from ssd.demo.settings import DemoSettings
    from ssd.federation.failure import describe
    from ssd.federation.records import DaemonFailed

    try:
        settings = DemoSettings(
            out=out,
            rounds=rounds,
            seed=seed,
            workers=workers,
            secure_aggregation=secure_aggregation,
            keep=keep,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        run_demo(settings, console())
    except PlaceRefused as refused:
        complain(str(refused))
        return EXIT_REFUSED
    except DaemonFailed as failed:
        complain("\n".join(describe(failed)))
        return EXIT_REFUSED
    return EXIT_OK
