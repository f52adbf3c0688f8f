"""A folder with every form an encoder can have, a Python file that builds it and a model card that describes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssd.export.architecture import WEIGHTS, module_text
from ssd.export.card import model_card
from ssd.export.forms import config_bytes, is_resnet, state_dict_bytes, timm_bytes, timm_config
from ssd.export.onnx_model import OnnxPackagesMissing, onnx_bytes
from ssd.export.source import FormImpossible, Source
from ssd.export.writing import MARK

Json = Any
CARD, CODE, ONNX, TIMM, TIMM_CONFIG = (
    "README.md",
    "encoder.py",
    "encoder.onnx",
    "model.safetensors",
    "config.json",
)
KNOWN = frozenset({CARD, CODE, WEIGHTS, ONNX, TIMM, TIMM_CONFIG, MARK})
"""Every name such a folder may hold."""


@dataclass(frozen=True, slots=True)
class Folder:
    """What is to be written."""

    files: Mapping[str, bytes]
    onnx_difference: float | None
    """The largest difference between the ONNX model and torch; None: no ONNX model was written."""
    left_out: str
    """Why a form is missing that others have, or ""."""


def onnx_facts(source: Source) -> dict[str, str]:
    """What an ONNX file says of its origin."""
    keys = ("run", "version", "model_digest", "declaration_digest", "method")
    return {f"ssd_{key}": source.metadata[key] for key in keys if key in source.metadata}


def assemble(source: Source, *, licence: str, measured: Mapping[str, Json] | None) -> Folder:
    """Every file of the folder, in memory.

    A folder without an ONNX file is made where its packages are not installed or the encoder has no such form; what a
    single `--format onnx` would refuse is then `left_out`.

    Raises:
        OnnxDiffers: the ONNX model does not compute what the encoder does.

    """
    files = {WEIGHTS: state_dict_bytes(source), CODE: module_text(source).encode()}
    words = {
        WEIGHTS: "state dict, for `torch.load(…, weights_only=True)`",
        CODE: "builds the module and loads it",
    }
    if is_resnet(source):
        files[TIMM] = timm_bytes(source)
        words[TIMM] = "the same tensors as `safetensors`, as timm loads them"
        if (config := timm_config(source)) is not None:
            files[TIMM_CONFIG] = config_bytes(config)
            words[TIMM_CONFIG] = 'lets `timm.create_model("local-dir:FOLDER")` find everything'
    difference, left_out = None, ""
    try:
        files[ONNX], difference = onnx_bytes(source, onnx_facts(source))
        words[ONNX] = "ONNX model, any batch size, normalisation inside"
    except (FormImpossible, OnnxPackagesMissing) as error:
        left_out = str(error)
    words[MARK] = "what is known of the encoder's origin, and the SHA-256 of every file"
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files[MARK] = config_bytes({"format": "ssd-lineage-v1", "encoder": _origin(source), "files": digests})
    card = model_card(
        source, licence=licence, files=list(words.items()), measured=measured, onnx_difference=difference
    )
    return Folder({CARD: card.encode(), **files}, difference, left_out)


def _origin(source: Source) -> dict[str, Json]:
    """The metadata with what is JSON in it as JSON."""
    found: dict[str, Json] = {}
    for key, value in source.metadata.items():
        try:
            found[key] = json.loads(value) if value[:1] == "{" else value
        except (ValueError, RecursionError):
            found[key] = value
    return found
