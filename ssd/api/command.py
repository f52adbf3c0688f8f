"""`ssd embed`: features of images, for whatever reads arrays or tables."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from ssd.daemon.cli.exit_codes import EXIT_OK, EXIT_STORAGE
from ssd.daemon.cli.guard import complain
from ssd.daemon.cli.terminal import CODES
from ssd.daemon.printable import printable_lines
from ssd.files import write_atomically

if TYPE_CHECKING:
    import numpy as np

_FORMS = (".npz", ".csv")


@click.command(epilog=CODES)
@click.argument("encoder", type=click.Path(path_type=Path, dir_okay=False), metavar="ENCODER.safetensors")
@click.argument("images", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True,
              help="New file, .npz (features [N, D] float32, names [N]) or .csv (name, f0, f1, …).")  # fmt: skip
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--min-side", type=click.IntRange(min=1),
              help="Leave out images with a shorter side.  [default: the encoder's size]")  # fmt: skip
@click.option("--window", type=float, nargs=2, metavar="BLACK WHITE",
              help="For files of more than 8 bits: the values of black and white, as in training.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace an existing file.")
def embed(
    encoder: Path,
    images: Path,
    out: Path,
    device: str,
    min_side: int | None,
    window: tuple[float, float] | None,
    force: bool,
) -> int:
    """Write the encoder's features of every image in a folder and its sub-folders, or of one image.

    Images are scaled and cropped to the encoder's square as in training. What is left out, and why, is said.
    """
    if out.suffix not in _FORMS:
        raise click.UsageError(f"--out ends with {' or '.join(_FORMS)}, not {out.name!r}")
    if out.exists() and not force:
        raise click.UsageError(f"{out} is there already; choose another --out, or --force")
    if window is not None and not window[0] < window[1]:
        raise click.UsageError("--window goes from black to a larger white")
    from ssd.api.encoder import embed as features_of
    from ssd.api.encoder import load_encoder
    from ssd.data.images.errors import DataError
    from ssd.export.encoder_file import EncoderFileError
    from ssd.plots.progress import progress_bar

    try:
        loaded = load_encoder(encoder)
    except EncoderFileError as error:
        complain(str(error))
        return EXIT_STORAGE
    try:
        with progress_bar(Console(stderr=True)) as track:
            found = features_of(loaded, images, device=device, min_side=min_side, window=window, track=track)
    except (ValueError, RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
        raise DataError(str(error).splitlines()[0]) from error
    content = _npz(found.features, found.names) if out.suffix == ".npz" else _csv(found.features, found.names)
    try:
        write_atomically(out, content)
    except OSError as error:
        complain(f"{out} cannot be written: {error.strerror or error}; nothing was left behind")
        return EXIT_STORAGE
    click.echo(f"{out}: {len(found)} images, {found.features.shape[1]} features each")
    if found.left_out:
        click.echo(printable_lines(found.left_out), err=True)
    return EXIT_OK


def _npz(features: np.ndarray[tuple[int, int], np.dtype[np.float32]], names: tuple[str, ...]) -> bytes:
    """An archive that is read without pickle."""
    import numpy as np

    sink = io.BytesIO()
    np.savez(sink, features=features, names=np.array([_text(name) for name in names]))
    return sink.getvalue()


def _csv(features: np.ndarray[tuple[int, int], np.dtype[np.float32]], names: tuple[str, ...]) -> bytes:
    import numpy as np

    sink = io.StringIO()
    rows = csv.writer(sink)
    rows.writerow(["name", *(f"f{index}" for index in range(features.shape[1]))])
    for name, row in zip(names, features, strict=True):
        # repr of a float32 is the shortest text that reads back to the same bits.
        rows.writerow(
            [_cell(name), *(repr(float(np.format_float_positional(value, unique=True))) for value in row)]
        )
    return sink.getvalue().encode()


def _cell(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    text = _text(name)
    return f"./{text}" if text[:1] in "=+-@\t" else text


def _text(name: str) -> str:
    """A file's name as text; bytes that are none are spelt out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
