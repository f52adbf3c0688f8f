"""`ssd experiment` and `ssd report`. What they need is imported when they run: `ssd --help` stays quick."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ssd.daemon.cli.exit_codes import EXIT_OK, EXIT_REFUSED, EXIT_USAGE
from ssd.daemon.cli.guard import complain
from ssd.daemon.cli.help_text import codes_sentence
from ssd.daemon.cli.terminal import CODES, EXIT_CODES, console
from ssd.daemon.printable import printable, printable_lines

if TYPE_CHECKING:
    from ssd.experiment.grid import Cell
    from ssd.experiment.run import Failure
    from ssd.experiment.settings import Experiment

_CODES = codes_sentence(
    EXIT_CODES
    | {
        EXIT_OK: "every cell is finished",
        EXIT_USAGE: "usage or the file",
        EXIT_REFUSED: "refused, in use, or a cell failed",
    }
)


@click.command(epilog=_CODES)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.toml")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False),
              help="Where everything goes.  [default: runs/experiments/NAME]")  # fmt: skip
@click.option("--root", type=click.Path(path_type=Path, file_okay=False),
              help="Folder of CIFAR or MNIST files.  [default: data.root, else $SSD_DATA_ROOT]")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), help="Cells at once.  [default: experiment.jobs]")
@click.option("--only", default="", help="Only cells whose SETTING/METHOD/seed-N contains this.")
@click.option("--list", "listing", is_flag=True, help="Print the cells and whether they are finished.")
@click.option("--dry-run", is_flag=True, help="Check the file and every method's configuration; run nothing.")
@click.option("--allow-dirty", is_flag=True,
              help="Run with changes that no commit holds; the report marks what they made.")  # fmt: skip
@click.option("--without-room", is_flag=True,
              help="Run methods whose claims the reference rows leave no room for.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep the daemons' state directories of finished cells.")
def experiment(
    file: Path,
    out: Path | None,
    root: Path | None,
    jobs: int | None,
    only: str,
    listing: bool,
    dry_run: bool,
    allow_dirty: bool,
    without_room: bool,
    keep: bool,
) -> int:
    """Run a grid of methods, settings and seeds, each cell a federation of real daemons on this machine.

    The base method and the reference rows run first; then the room between them is printed, and the rest runs only if
    there is some. A finished cell is skipped, an interrupted one taken up where it was: run the same command again after
    anything.
    """
    from ssd.experiment.grid import cells, needs_root
    from ssd.experiment.layout import CellRefused
    from ssd.experiment.settings import load
    from ssd.settings import SettingsError

    try:
        wanted = load(file)
        made = cells(wanted, only)
        if not made:
            raise SettingsError([f"no cell's name contains {only!r}; --list shows the names"])
        folder = out or Path("runs") / "experiments" / wanted.experiment.name
        if listing or dry_run:
            _list(made, folder, check=dry_run)
            return EXIT_OK
        where = str(root) if root is not None else wanted.data.root or os.environ.get("SSD_DATA_ROOT")
        if where is None and needs_root(made):
            sets = " and ".join(needs_root(made))
            raise SettingsError([f"where are the files of {sets}? Say so with --root or $SSD_DATA_ROOT"])
        refuse_dirty(allow_dirty)
        failures = _run(
            wanted, made, folder, where, jobs or wanted.experiment.jobs, keep=keep, anyway=without_room
        )
    except SettingsError as error:
        complain(f"{file}: " + "\n  ".join(error.mistakes))
        return EXIT_USAGE
    except CellRefused as refused:
        complain(str(refused))
        return EXIT_REFUSED
    _report(failures, len(made), folder)
    return EXIT_REFUSED if failures else EXIT_OK


def _run(
    wanted: Experiment,
    made: Sequence[Cell],
    folder: Path,
    root: str | None,
    jobs: int,
    *,
    keep: bool,
    anyway: bool,
) -> list[Failure]:
    """The base and the reference rows, what they leave to gain, and then the rest.

    Raises:
        CellRefused: as `run_experiment`; or a claim has no room, and nobody said to run its methods anyway.
    """
    from ssd.experiment.layout import CellRefused, finished
    from ssd.experiment.references import REFERENCES
    from ssd.experiment.report.results import read
    from ssd.experiment.report.room import claimed_rooms, room_words, without_room
    from ssd.experiment.run import run_experiment

    rows = [cell for cell in made if cell.method in (*REFERENCES, wanted.base)]
    rest = [cell for cell in made if cell not in rows]
    if not any(cell.method in REFERENCES for cell in rows):
        return run_experiment(wanted, made, folder, console(), root=root, jobs=jobs, keep=keep)
    failures = run_experiment(wanted, rows, folder, console(), root=root, jobs=jobs, keep=keep)
    results = read(folder)
    base = next(each.title for each in wanted.methods if each.label == wanted.base)
    for setting in wanted.settings:
        for room in claimed_rooms(results, setting.name):
            click.echo(printable(room_words(room, base)))
    refused = without_room(results)
    if refused and not anyway and not all(finished(folder, cell) for cell in rest):
        listed = "\n".join(f"  {claim.name}: {room_words(room, base)}" for claim, room in refused)
        raise CellRefused(
            f"the reference rows leave no room for {len(refused)} claim(s), so that no method can win:\n{listed}\n"
            "  choose a setting with more unevenness or more local work, or take the claim out; --without-room runs the "
            "methods all the same, and the report marks the claim"
        )
    return failures + run_experiment(wanted, rest, folder, console(), root=root, jobs=jobs, keep=keep)


def refuse_dirty(allowed: bool) -> None:
    """Refuses to make results that nobody could make again.

    Raises:
        CellRefused: the code is a checkout with changes that no commit holds.
    """
    from ssd.experiment.layout import CellRefused
    from ssd.federation.provenance import code_version, without_commit

    code = code_version()
    if without_commit(code) and not allowed:
        raise CellRefused(
            f"the code has changes that no commit holds ({code}), so nobody could make its results again: commit them, or"
            " say --allow-dirty, and the report marks what they made"
        )


def _list(made: Sequence[Cell], folder: Path, *, check: bool) -> None:
    from ssd.experiment.grid import check_methods
    from ssd.experiment.layout import CONFIG, finished, folder_of, refuse_changes

    if check:
        check_methods(made)
    for cell in made:
        refuse_changes(folder, cell)
        begun = (folder_of(folder, cell) / CONFIG).exists()
        state = "finished" if finished(folder, cell) else "begun" if begun else "not run"
        click.echo(f"{cell.name}\t{state}")
    if check:
        click.echo(f"{len(made)} cells, every configuration is accepted; nothing was run")


def _report(failures: Sequence[Failure], total: int, folder: Path) -> None:
    for failure in failures:
        click.echo(f"failed: {failure.cell}: {printable_lines(failure.error)}", err=True)
        for line in failure.words:
            click.echo(f"    {printable(line)}", err=True)
        click.echo(f"    the whole log is in {failure.log}", err=True)
    if failures:
        click.echo(f"{len(failures)} of {total} cells failed; the same command tries them again", err=True)
    else:
        click.echo(f"{total} cells finished; next: ssd report {folder}")


@click.command(epilog=CODES)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False),
              help="Where the report goes.  [default: DIR/report]")  # fmt: skip
@click.option("--root", type=click.Path(path_type=Path, file_okay=False),
              help="Folder of CIFAR or MNIST files, for the maps.  [default: data.root, else $SSD_DATA_ROOT]")  # fmt: skip
@click.option("--maps/--no-maps", default=True, show_default=True, help="Draw maps of the representations.")
def report(folder: Path, out: Path | None, root: Path | None, maps: bool) -> int:
    """Tables, curves and verdicts of the experiment in DIR, from whichever of its cells are finished."""
    from ssd.experiment.layout import CellRefused
    from ssd.experiment.report.results import read
    from ssd.experiment.report.write import write_report
    from ssd.settings import SettingsError

    try:
        results = read(folder)
    except (SettingsError, CellRefused) as error:
        complain(str(error))
        return EXIT_USAGE
    found = root or results.experiment.data.root or os.environ.get("SSD_DATA_ROOT")
    where = None if found is None else Path(found)
    written = write_report(
        results, out or folder / "report", where, with_maps=maps, say=lambda text: click.echo(text, err=True)
    )
    click.echo(f"{len(results.results)} of {len(results.cells)} cells -> {', '.join(map(str, written))}")
    return EXIT_OK
