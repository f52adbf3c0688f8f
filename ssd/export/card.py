"""The model card: what an encoder is and where it comes from, in Markdown with the front matter of model hubs.

Every fact is read from the encoder file (or from a file of measures beside it). What is not known is said to be
unknown; nothing is guessed. Text from the file is written so that it can be nothing but text: it ends no line, cell or
code span, and starts no tag or link.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ssd.export.architecture import stem_lines, torchvision_name
from ssd.export.forms import is_resnet
from ssd.export.onnx_model import INPUT, OUTPUT
from ssd.export.source import Source

Json = Any
UNKNOWN = "unknown"
NO_LICENCE = "unknown: say what applies"
_LONGEST = 300
_MARKUP = re.compile(r"[|`<>*\\\[\]!#&]|:(?=//)|(?<=www)\.", re.IGNORECASE)
"""Characters that begin a cell, span, tag or link (bare addresses too)."""


def model_card(
    source: Source,
    *,
    licence: str,
    files: Sequence[tuple[str, str]],
    measured: Mapping[str, Json] | None = None,
    onnx_difference: float | None = None,
) -> str:
    """The text of `README.md`.

    Args:
        source: the encoder.
        licence: what the user says applies.
        files: (name, what it is) of the files beside the card.
        measured: what `ssd evaluate --format json` printed of this encoder, if anything.
        onnx_difference: the largest difference to torch that was found; None: no ONNX file was written.

    """
    sections = [
        _front_matter(source, licence),
        _head(source),
        _section("Files", _files(files, onnx_difference)),
        _section("Use", _use(source, {name for name, _ in files})),
        _section("Images", _images(source)),
        _section("How it was trained", _training(source)),
        _section("Data", _data(source)),
        _section("Where it comes from", _lineage(source)),
        _section("What was measured", _measures(source, measured)),
        _section("Privacy", _privacy(source)),
        _section("Limitations", _limitations(source)),
        _section("Licence", [_text(licence)]),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(source: Source, licence: str) -> str:
    library = "timm" if is_resnet(source) and not stem_lines(source) else "pytorch"
    # A JSON string is a YAML string.
    lines = [
        f"license: {json.dumps(licence)}",
        f"library_name: {library}",
        "pipeline_tag: image-feature-extraction",
        "tags:",
        "- federated-learning",
        "- image-feature-extraction",
    ]
    if (trained_on := source.metadata.get("trained_on")) is not None:
        lines += ["datasets:", f"- {json.dumps(trained_on[:_LONGEST])}"]
    return "\n".join(["---", *lines, "---"])


def _head(source: Source) -> str:
    meta = source.metadata
    what = (
        f"{source.model.name} encoder, version {_text(meta.get('version'))} of run {_text(meta.get('run'))}"
    )
    parameters = sum(value.numel() for value in source.encoder.parameters())
    return (
        f"# {what}\n\nAn image encoder: {_shape(source)} float32 images in, one representation of {source.feature_dim} "
        f"numbers out for each. {parameters:,} parameters. It was trained by federated learning, method "
        f"{_text(meta.get('method'))}: the images stayed with the clients that own them."
    )


def _files(files: Sequence[tuple[str, str]], onnx_difference: float | None) -> Iterator[str]:
    yield _table(("file", "what it is"), [(f"`{name}`", words) for name, words in files])
    if onnx_difference is not None:
        yield (
            f"The ONNX model was run with onnxruntime beside torch when it was written: the largest absolute difference "
            f"between their features was {onnx_difference:.2g}."
        )


def _use(source: Source, names: set[str]) -> Iterator[str]:
    if "encoder.py" in names:
        yield _code(
            "python", "from encoder import load", "features = load()(images)      # evaluation mode, CPU"
        )
    if is_resnet(source):
        yield "As torchvision's module; images have to be normalised first (see below):"
        yield _code("python", *torchvision_lines(source))
        yield "As timm's:"
        yield _code("python", *timm_lines(source))
    if "encoder.onnx" in names:
        yield "With onnxruntime; the batch may have any size, the normalisation is inside:"
        yield _code(
            "python",
            "import onnxruntime",
            'session = onnxruntime.InferenceSession("encoder.onnx")',
            f'features = session.run(["{OUTPUT}"], {{"{INPUT}": images}})[0]',
        )


def torchvision_lines(source: Source, file: str = "encoder.pt") -> list[str]:
    """Python that loads the state dict into torchvision's module."""
    return [
        "import torch, torchvision",
        "from torch import nn",
        f"encoder = torchvision.models.{torchvision_name(source)}()",
        *stem_lines(source),
        "encoder.fc = nn.Identity()",
        f'encoder.load_state_dict(torch.load("{file}", weights_only=True))',
        "encoder.eval()",
    ]


def timm_lines(source: Source, file: str = "model.safetensors") -> list[str]:
    """Python that loads the `safetensors` file into timm's module."""
    name, changes = torchvision_name(source), stem_lines(source)
    if not changes:
        return [
            "import timm",
            f'encoder = timm.create_model("{name}", num_classes=0, checkpoint_path="{file}").eval()',
        ]
    return [
        "import timm",
        "from safetensors.torch import load_file",
        "from torch import nn",
        f'encoder = timm.create_model("{name}", num_classes=0)',
        *changes,
        f'encoder.load_state_dict(load_file("{file}"))',
        "encoder.eval()",
    ]


def _images(source: Source) -> Iterator[str]:
    grey = "grey" if source.image.channels == 1 else "RGB"
    side = source.image.size
    yield (
        f"{side} × {side} pixels, {grey}, float32 in [0, 1] (bytes divided by 255), laid out {_shape(source)}. Images of "
        "another size or shape are cropped to the centred square and resized (bilinear, with antialiasing), as folders of "
        "images are in training and by `ssd evaluate` and `ssd embed`; nothing is augmented at use."
    )
    if source.normalises:
        yield (
            f"Normalisation: (x − mean) / std with mean {_numbers(source.mean)} and std {_numbers(source.std)}, one value "
            "a channel. `encoder.py` and `encoder.onnx` do it themselves; torchvision's and timm's modules do not."
        )
    else:
        yield "Normalisation: none; the encoder was trained on values in [0, 1] as they are."
    if not source.has_statistics:
        yield (
            "The file has no BatchNorm statistics (they stayed with the clients): the encoder normalises by the batch it "
            "is shown, so an image's features depend on the images beside it."
        )


def _training(source: Source) -> Iterator[str]:
    known = source.provenance
    planned = known.get("rounds")
    rows = [
        ("method", _text(source.metadata.get("method"))),
        ("rounds committed", _text(source.metadata.get("version"))),
        ("rounds planned", _text(planned)),
        ("sampling of clients", _text(known.get("mode"))),
    ]
    yield _table(("", ""), rows)
    if source.config:
        yield "Configuration of the method, as every worker had it:"
        yield _table(
            ("setting", "value"),
            [(_span(key), _span(json.dumps(value))) for key, value in sorted(source.config.items())],
        )
    else:
        yield "Configuration of the method: unknown; the file does not hold it."


def _data(source: Source) -> Iterator[str]:
    known = source.provenance
    statistics = _mapping(known.get("statistics"))
    yield (
        "The coordinator never saw an image and does not know what the clients hold; what it counted is this. A client's "
        "weight is what its method says (a number of images or of batches; 1 under differential privacy)."
    )
    yield _table(
        ("", ""),
        [
            ("data set, as the exporter named it", _text(source.metadata.get("trained_on"))),
            ("clients registered", _text(known.get("registered_clients"))),
            ("clients whose updates are in it", _text(known.get("included_clients"))),
            ("clients in the last round", _text(statistics.get("clients"))),
            ("aggregation weight in the last round", _text(statistics.get("weight"))),
            ("aggregation weight over all rounds", _text(known.get("total_weight"))),
        ],
    )


def _lineage(source: Source) -> Iterator[str]:
    meta = source.metadata
    rows = [
        ("run", meta.get("run")),
        ("model version", meta.get("version")),
        ("model digest", meta.get("model_digest")),
        ("digest of the version before", source.provenance.get("parent_digest") or None),
        ("declaration digest", meta.get("declaration_digest")),
        ("coordinator", source.provenance.get("build")),
    ]
    if meta.get("version") == "0":
        rows[3] = ("digest of the version before", "none: version 0 is the untrained start")
    yield _table(("", ""), [(name, _code_cell(value)) for name, value in rows])
    yield (
        "The model digest is SHA-256 over the layout and the float32 values of the whole version, of which the encoder is "
        "a part; the coordinator's journal has it too."
    )


def _measures(source: Source, measured: Mapping[str, Json] | None) -> Iterator[str]:
    evaluation = _mapping(source.provenance.get("evaluation"))
    if measured is not None:
        yield (
            f"Measured on the file by `ssd evaluate` on {_text(measured.get('data'))} (accuracies are shares of 1; "
            "docs/evaluation.md of the project says what each measure is):"
        )
        yield _values(_mapping(measured.get("measures")))
    if evaluation:
        yield "Measured on this version during the run, by its evaluator on its probe data:"
        yield _values(evaluation)
    if measured is None and not evaluation:
        yield "Unknown: the file holds no measures of this version, and none were given to the export."


def _privacy(source: Source) -> Iterator[str]:
    known = source.provenance
    if not known:
        yield "Secure aggregation: unknown. Differential privacy: unknown. The file does not hold it."
        return
    level = _text(known.get("secure_aggregation"))
    words = {
        "off": "off: the coordinator saw every client's or worker's update.",
        "passive": "passive: the coordinator saw sums only, if it kept to the protocol.",
        "active": "active: the coordinator saw sums only, under the assumptions of the project's docs/security.md.",
    }
    yield f"Secure aggregation: {words.get(level, level)}"
    spent = known.get("privacy")
    if spent is None:
        yield "Differential privacy: unknown."
    elif spent == "":
        yield "Differential privacy: off; nothing bounds what the encoder may reveal of a single client's images."
    else:
        yield f"Differential privacy of a client's whole contribution: {_text(spent, longest=2000)}."


def _limitations(source: Source) -> Iterator[str]:
    version, planned = source.metadata.get("version"), source.provenance.get("rounds")
    if version == "0":
        yield "- This is version 0: an untrained encoder."
    elif isinstance(planned, int) and version is not None and version.isdecimal() and int(version) < planned:
        yield f"- The run was to have {planned} rounds; this is the encoder after {version}."
    yield (
        "- It gives representations, no classes and no probabilities; what they are worth for a task has to be measured on "
        "images of that task.\n"
        "- Nobody has looked at all the images it was trained on. Which people, places or things are missing or over-"
        "represented is unknown, and so is how that shows.\n"
        f"- Images very different from the training images, or much larger or smaller than {source.image.size} pixels before "
        "they are resized, are outside what it was trained for."
    )


# ---------------------------------------------------------------------------------------------------------- writing


def _section(title: str, paragraphs: Sequence[str] | Iterator[str]) -> str:
    return "\n\n".join([f"## {title}", *paragraphs])


def _table(header: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    lines = [f"| {header[0]} | {header[1]} |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows)])


def _values(values: Mapping[str, Json]) -> str:
    return _table(
        ("measure", "value"), [(_span(name), _text(value)) for name, value in sorted(values.items())]
    )


def _code(language: str, *lines: str) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _code_cell(value: Json) -> str:
    return UNKNOWN if value is None else _span(value)


def _shape(source: Source) -> str:
    return f"[B, {source.image.channels}, {source.image.size}, {source.image.size}]"


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Json, longest: int = _LONGEST) -> str:
    """A value as one line that Markdown takes for plain text, in a cell or a code span too."""
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return UNKNOWN
    if isinstance(value, bool | list | dict):
        value = json.dumps(value)
    if isinstance(value, float):
        value = f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", _line(str(value), longest))


def _span(value: Json) -> str:
    """A value as a code span that ends where it should, in a cell too."""
    return "`" + _line(str(value), _LONGEST).replace("`", "'").replace("|", "\\|") + "`"


def _line(text: str, longest: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
