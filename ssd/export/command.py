"""`ssd export`: an encoder file in the forms that others load (`docs/taking-the-model-home.md`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssd.daemon.cli.exit_codes import EXIT_OK, EXIT_REFUSED, EXIT_STORAGE
from ssd.daemon.cli.guard import complain
from ssd.daemon.cli.terminal import CODES

if TYPE_CHECKING:
    from ssd.export.source import Source

Json = Any
_FILE = click.Path(path_type=Path, dir_okay=False)
_FORMATS = ("state-dict", "torchvision", "timm", "onnx")
"""A copy of `ssd.export.forms.FORMATS`, whose module imports torch."""
_NO_LICENCE = "unknown: say what applies"


@click.command(epilog=CODES)
@click.argument("encoder", type=_FILE, metavar="ENCODER.safetensors")
@click.option("--out", type=click.Path(path_type=Path), required=True,
              help="The new folder; with --format, the new file.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(_FORMATS),
              help="Write this one form.  [default: a folder with every form and a model card]")  # fmt: skip
@click.option("--licence", default=_NO_LICENCE, show_default=True, help="What the model card says of it.")
@click.option("--measured", type=_FILE,
              help="What `ssd evaluate --format json` printed of this encoder, for the model card.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace an existing file, or a folder that an export wrote.")
def export(
    encoder: Path, out: Path, form: str | None, licence: str, measured: Path | None, force: bool
) -> int:
    """Write an encoder as a plain PyTorch state dict, for torchvision or timm, or as ONNX, with a model card.

    ENCODER is what `ssd-coordinator export` and `ssd demo` write. What comes out needs nothing of this project.
    """
    from ssd.export.encoder_file import EncoderFileError
    from ssd.export.onnx_model import OnnxDiffers, OnnxPackagesMissing
    from ssd.export.source import FormImpossible
    from ssd.export.writing import PlaceTaken

    if form is not None and measured is not None:
        raise click.UsageError("--measured is for the model card, which --format leaves out")
    if not out.absolute().parent.is_dir():
        complain(f"{out.parent} is no folder: make it first, or choose another --out")
        return EXIT_STORAGE
    try:
        _write(encoder, out, form, licence, measured, force=force)
    except EncoderFileError as error:
        complain(f"{error}. `ssd-coordinator export --out ENCODER.safetensors` takes an encoder out of a run (an older one: "
                 "--version N), `ssd demo` makes one")  # fmt: skip
        return EXIT_STORAGE
    except (FormImpossible, OnnxPackagesMissing, PlaceTaken) as error:
        raise click.UsageError(str(error)) from error
    except OnnxDiffers as error:
        complain(str(error))
        return EXIT_REFUSED
    except OSError as error:
        complain(f"{out} cannot be written: {error.strerror or error}. Free some room or choose another --out; nothing was "
                 "left behind")  # fmt: skip
        return EXIT_STORAGE
    return EXIT_OK


def _write(
    encoder: Path, out: Path, form: str | None, licence: str, measured: Path | None, *, force: bool
) -> None:
    from ssd.export.folder import KNOWN, assemble
    from ssd.export.source import read_source
    from ssd.export.writing import (
        PlaceTaken,
        refuse_taken_file,
        refuse_taken_folder,
        write_file,
        write_folder,
    )

    # Before the work: an ONNX model of a large encoder takes a while.
    if out.exists() and encoder.exists() and out.samefile(encoder):
        raise PlaceTaken(f"{out} is the encoder itself: choose another name")
    if form is None:
        refuse_taken_folder(out, KNOWN, force=force)
    else:
        refuse_taken_file(out, force=force)
    source = read_source(encoder)
    if form is not None:
        content, words = _single(source, form, out.name)
        write_file(out, content, force=force)
        click.echo("\n".join([f"{form} -> {out}", *words]))
        return
    folder = assemble(source, licence=licence, measured=_measures(measured, source))
    write_folder(out, folder.files, KNOWN, force=force)
    for name, data in folder.files.items():
        click.echo(f"{out / name}  {len(data):,} bytes")
    if folder.onnx_difference is not None:
        click.echo(_difference(folder.onnx_difference))
    if folder.left_out:
        click.echo(f"left out: {folder.left_out}")


def _single(source: Source, form: str, name: str) -> tuple[bytes, list[str]]:
    """The file of one form, and how it is loaded."""
    from ssd.export import forms
    from ssd.export.card import timm_lines, torchvision_lines
    from ssd.export.folder import onnx_facts
    from ssd.export.onnx_model import onnx_bytes

    if form == "onnx":
        content, difference = onnx_bytes(source, onnx_facts(source))
        return content, [_difference(difference)]
    normalise = (
        [f"give it (images - mean) / std with mean {source.mean} and std {source.std}, images in [0, 1]"]
        if source.normalises
        else []
    )
    if form == "timm":
        return forms.timm_bytes(source), ["load it with:", *_indented(timm_lines(source, name)), *normalise]
    if form == "torchvision":
        return forms.torchvision_bytes(source), [
            "load it with:",
            *_indented(torchvision_lines(source, name)),
            *normalise,
        ]
    return forms.state_dict_bytes(source), normalise


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _difference(value: float) -> str:
    return f"onnxruntime against torch: largest absolute difference {value:.3g}"


def _measures(path: Path | None, source: Source) -> Mapping[str, Json] | None:
    """What `ssd evaluate` printed, if it is of this encoder."""
    if path is None:
        return None
    try:
        said = json.loads(path.read_bytes())
        measures, metadata = said["measures"], said["metadata"]
        if not isinstance(measures, dict) or not isinstance(metadata, dict):
            raise TypeError("measures and metadata have to be objects")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise click.UsageError(
            f"{path} is not what `ssd evaluate --format json` prints: {str(error)[:200]}"
        ) from error
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}") from error
    ours, theirs = source.metadata.get("model_digest"), metadata.get("model_digest")
    if ours is None or ours != theirs:
        raise click.UsageError(
            f"{path} measures another version (model digest {str(theirs)[:64]!r}) than {source.path} ({ours!r}): run "
            "`ssd evaluate` on this encoder"
        )
    return {"data": said.get("data"), "measures": measures}
