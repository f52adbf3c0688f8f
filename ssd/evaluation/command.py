"""`ssd evaluate`: what exported files are worth on labelled images, as a table or as JSON (`docs/evaluation.md`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from ssd.daemon.cli.exit_codes import EXIT_OK, EXIT_STORAGE
from ssd.daemon.cli.guard import complain
from ssd.daemon.cli.terminal import CODES, KINDS, console, data_options
from ssd.daemon.printable import json_text, printable
from ssd.data.images.errors import DataError
from ssd.evaluation.measures import BESIDE, DEFAULT_MEASURES, MEASURES
from ssd.plots.progress import progress_bar

if TYPE_CHECKING:
    from ssd.data.images.source import ImageFormat, ProbeData
    from ssd.evaluation.evaluate import EvaluationOptions
    from ssd.evaluation.fine_tuning import FineTuning
    from ssd.evaluation.parts import Parts

Json = Any
_FILE = click.Path(path_type=Path, dir_okay=False)
_EPILOG = (
    "Measures: "
    + "; ".join(f"{name}: {words}" for name, words in MEASURES.items())
    + ". The keys of the JSON output are in docs/evaluation.md.\n\n"
    + CODES
)


@click.command(epilog=_EPILOG)
@click.argument("encoder", type=_FILE, metavar="ENCODER.safetensors")
@click.option("--data", "kind", type=click.Choice([*KINDS, "folder"]), required=True, help="Labelled images.")
@data_options
@click.option("--probe", type=click.Path(path_type=Path, file_okay=False),
              help="For --data folder: one sub-folder of images per class.")  # fmt: skip
@click.option("--partition", "partition_file", type=_FILE,
              help="Whose the training images are: splits uniformity into within and between clients.")  # fmt: skip
@click.option("--measures", type=click.Choice(list(MEASURES)), multiple=True, default=DEFAULT_MEASURES,
              show_default=True, help="What to measure; may be repeated.")  # fmt: skip
@click.option("--features", "kinds", type=click.Choice(["h", "z"]), multiple=True, default=("h",),
              show_default=True, help="h: the encoder's output; z: the projector's. May be repeated.")  # fmt: skip
@click.option("--projector", "projector_file", type=_FILE, help="The projector, for --features z.")
@click.option("--head", "head_file", type=_FILE, help="A linear classifier: also its accuracy.")
@click.option("--labels-per-class", type=click.IntRange(min=1), multiple=True, default=(2,), show_default=True,
              help="Of few_labels; may be repeated.")  # fmt: skip
@click.option("--draws", type=click.IntRange(min=1), default=20, show_default=True, help="Of the few labels.")
@click.option("--neighbours", type=click.IntRange(min=1), default=20, show_default=True, help="Of kNN.")
@click.option("--split", "splits", type=click.Choice(["train", "test"]), multiple=True, default=("train",),
              show_default=True, help="Whose images quality is measured on; may be repeated.")  # fmt: skip
@click.option("--quality-samples", type=click.IntRange(min=2),
              help="At most so many images, a seeded sample, for uniformity and alignment.")  # fmt: skip
@click.option("--views", type=click.Choice(["official", "fedu2", "digits"]),
              help="Also measure alignment under these views.")  # fmt: skip
@click.option("--fine-tune-epochs", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--test-looks", is_flag=True,
              help="Fine-tuning: add the best of 4 test looks, as the official code prints; optimistic.")  # fmt: skip
@click.option("--beside/--no-beside", "with_beside", default=True, show_default=True,
              help="Also measure what needs no training: chance, raw pixels, the encoder with fresh weights.")  # fmt: skip
@click.option("--pretrained", type=_FILE, metavar="ENCODER.safetensors",
              help="Another encoder to stand beside this one.")  # fmt: skip
@click.option("--as", "stand_in", type=click.Choice(BESIDE),
              help="Measure this instead of the encoder, whose format it has.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Of draws, samples, views, probes and fresh weights.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1),
              help="Of the CPU; another number gives other last bits.  [default: torch's choice]")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def evaluate(
    encoder: Path,
    kind: str,
    root: Path | None,
    download: bool,
    probe: Path | None,
    partition_file: Path | None,
    measures: tuple[str, ...],
    kinds: tuple[str, ...],
    projector_file: Path | None,
    head_file: Path | None,
    labels_per_class: tuple[int, ...],
    draws: int,
    neighbours: int,
    splits: tuple[str, ...],
    quality_samples: int | None,
    views: str | None,
    fine_tune_epochs: int,
    test_looks: bool,
    with_beside: bool,
    pretrained: Path | None,
    stand_in: str | None,
    seed: int,
    device: str,
    threads: int | None,
    form: str,
) -> int:
    """Linear probes, kNN, fine-tuning, uniformity, alignment and effective rank of an exported encoder.

    The data may be another than the encoder was trained on; its images are brought to the encoder's format. Beside the
    encoder's figures stand those of chance, of raw pixels and of the encoder with fresh weights.
    """
    import torch

    from ssd.data.open import DataConfig, open_probe
    from ssd.evaluation.fine_tuning import FineTuning
    from ssd.export.encoder_file import EncoderFileError, read_encoder

    _check(kind, probe, partition_file, kinds, projector_file)
    where = _device(device)
    try:
        parts, image = _load(encoder, projector_file, head_file, where)
        other = None if pretrained is None else _pretrained(pretrained, image, where)
    except EncoderFileError as error:
        complain(str(error))
        return EXIT_STORAGE
    config = DataConfig(kind=kind, root=root, partition=partition_file, probe=probe, download=download)
    data = open_probe(config, image)
    used = threads or torch.get_num_threads()
    recipe = FineTuning(epochs=fine_tune_epochs, looks=test_looks)
    with progress_bar(Console(stderr=True)) as track:
        options = _options(
            views, device=where, labels_per_class=tuple(sorted(set(labels_per_class))), draws=draws, seed=seed,
            knn_k=neighbours, quality_samples=quality_samples, track=track,
            measures=tuple(dict.fromkeys(measures)), splits=tuple(dict.fromkeys(splits)),
        )  # fmt: skip
        asked = _Asked(kinds=tuple(dict.fromkeys(kinds)), options=options, recipe=recipe, threads=used)
        values, others = asked.measured(parts, data, stand_in, other, with_beside=with_beside)
    metadata = read_encoder(encoder)[1]
    described = {
        "encoder": str(encoder),
        "metadata": metadata,
        "trained_on": metadata.get("trained_on"),
        "data": data.name,
        "image": asdict(image),
        "features": list(dict.fromkeys(kinds)),
        "splits": list(options.splits),
        "draws": draws,
        "seed": seed,
        "measures": values,
        "beside": others,
    }
    if form == "json":
        click.echo(json_text(described))
    else:
        _print(described, encoder.name)
    return EXIT_OK


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """How everything in one call is measured."""

    kinds: tuple[str, ...]
    options: EvaluationOptions
    recipe: FineTuning
    threads: int

    def measured(
        self, parts: Parts, data: ProbeData, stand_in: str | None, other: Parts | None, *, with_beside: bool
    ) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """The encoder's measures (or those of `stand_in`), and by name what stands beside them.

        Raises:
            DataError: the encoder cannot be measured on these images.
        """
        import torch

        from ssd.evaluation.beside import beside
        from ssd.evaluation.parts import evaluate_parts
        from ssd.torch_support.determinism import deterministic

        def without_training(name: str) -> dict[str, float]:
            return beside(name, parts, data, self.kinds, self.options, self.threads)

        try:
            with deterministic(torch.device(self.options.device), self.threads):
                if stand_in is not None:
                    return without_training(stand_in), {}
                values = evaluate_parts(parts, data, self.kinds, self.options, self.recipe, self.threads)
                others = {name: without_training(name) for name in BESIDE} if with_beside else {}
                if other is not None:
                    others["pretrained"] = evaluate_parts(
                        other, data, ("h",), self.options, self.recipe, self.threads
                    )
        except ValueError as error:
            raise DataError(f"this encoder cannot be measured on these images: {error}") from error
        return values, others


def _pretrained(path: Path, image: ImageFormat, device: str) -> Parts:
    """Another encoder for the same images.

    Raises:
        UsageError: it takes images of another format.
        EncoderFileError: no encoder of this project.
    """
    parts, format_ = _load(path, None, None, device)
    if format_ != image:
        raise click.UsageError(
            f"--pretrained takes images of {format_.size} pixels and {format_.channels} channels, the encoder "
            f"{image.size} and {image.channels}: measure it in a call of its own"
        )
    return parts


def _check(
    kind: str,
    probe: Path | None,
    partition_file: Path | None,
    kinds: tuple[str, ...],
    projector_file: Path | None,
) -> None:
    if kind == "folder" and probe is None:
        raise click.UsageError(
            "--data folder needs --probe, a folder with one sub-folder of images per class"
        )
    if kind == "folder" and partition_file is not None:
        raise click.UsageError("--partition belongs to a built-in data set, not to --data folder")
    if "z" in kinds and projector_file is None:
        raise click.UsageError(
            "--features z needs --projector, a file that `ssd-coordinator export --part projector` writes"
        )


def _load(
    encoder: Path, projector_file: Path | None, head_file: Path | None, device: str
) -> tuple[Parts, ImageFormat]:
    from ssd.evaluation.parts import Parts
    from ssd.export.encoder_file import feature_dim_of, load_encoder, load_head, load_projector, same_version

    module, image = load_encoder(encoder)
    for other in (projector_file, head_file):
        if other is not None:
            same_version(encoder, other)
    feature_dim = feature_dim_of(encoder)
    return Parts(
        encoder=module.to(device),
        feature_dim=feature_dim,
        projector=None if projector_file is None else load_projector(projector_file).to(device),
        head=None if head_file is None else load_head(head_file, feature_dim).to(device),
    ), image


def _options(views: str | None, **given: Json) -> EvaluationOptions:
    from ssd.data.views.views import PRESETS, Views
    from ssd.evaluation.evaluate import EvaluationOptions

    return EvaluationOptions(**given, views=None if views is None else Views(PRESETS[views]).pair)


def _print(described: Mapping[str, Json], name: str) -> None:
    from ssd.evaluation.beside import small_probe, worse_than
    from ssd.plots.table import explain, measures_table

    values, kinds = described["measures"], described["features"]
    of_h, of_z = _by_kind(values)
    columns = {"h": of_h} if "h" in kinds or not of_z else {}
    columns |= {"z": of_z} if of_z else {}
    if set(columns) == {"h"}:
        columns = {name: of_h}
    for other, found in described["beside"].items():
        other_h, other_z = _by_kind(found)
        title = str(other).replace("-", " ")
        columns |= {title: other_h} if other_h and ("h" in kinds or not of_z) else {}
        columns |= {f"z, {title}": other_z} if other_z else {}
    screen = console()
    screen.print(measures_table(columns))
    words = {"h": "h (the encoder's output)", "z": "z (the projector's output)"}
    features = " and ".join(words[kind] for kind in kinds)
    measured = {**of_z, **of_h}
    for line in explain(measured, features=features, draws=described["draws"], data=described["data"]):
        screen.print(line, markup=False)
    for line in filter(None, [small_probe(values), *worse_than(values, described["beside"])]):
        screen.print(f"Warning: {line}", markup=False)
    screen.print(printable(_origin(described)), markup=False)


def _by_kind(values: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """The measures of h and those of z, by the same keys."""
    of_h = {key: value for key, value in values.items() if not key.startswith("z_")}
    of_z = {key.removeprefix("z_"): value for key, value in values.items() if key.startswith("z_")}
    return of_h, of_z


def _origin(described: Mapping[str, Json]) -> str:
    trained, data, image = described["trained_on"], described["data"], described["image"]
    images = f"images as {image['size']} × {image['size']} with {image['channels']} channel(s)"
    if trained is None:
        return f"Probed on {data}, {images}; the file does not say what the encoder was trained on."
    transfer = "" if trained == data else " (transfer)"
    return f"Trained on {trained}, probed on {data}{transfer}, {images}."


def _device(wanted: str) -> str:
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        # torch without CUDA support raises AssertionError here.
        raise click.UsageError(f"--device {wanted} cannot be used: {str(error).splitlines()[0]}") from error
    return wanted
