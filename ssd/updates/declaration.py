"""What a method declares about itself, as data both daemons can act on.

The coordinator stores a declaration with the run and sends its digest with every task; a worker whose own
declaration differs refuses the task. Neither daemon ever branches on a method's name: everything they need
to know is a property in here. This module imports no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from ssd.digest import json_digest
from ssd.scaling import ScalingError, ScalingVector, block_size
from ssd.updates.spec import ParameterSpec

Json = Any
MAX_BYTES = 16 << 20
"""No declaration is longer: of a tensor it has some hundred bytes."""
MAX_DEPTH = 32
"""No declaration is nested deeper: a method's configuration has tables in tables, but few."""
METHOD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
"""What a declared method may be called: never a path, nor the name of a Python file."""


class DeclarationError(ValueError):
    """A declaration (or its JSON form) is not well formed."""


class Reducer(StrEnum):
    """How the cohort's values of one group become one value."""

    WEIGHTED_MEAN = "weighted_mean"
    PLAIN_MEAN = "plain_mean"
    SUM = "sum"


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupDeclaration:
    """A contiguous slice of the parameter vector with its own numeric treatment."""

    name: str
    reducer: Reducer
    max_abs: float
    """Largest |value| any coordinate of one client's update may have; fixes the fixed-point scale."""
    norm_bound: float
    """Largest L2 norm one client's update of this group may have."""
    compress: bool = True
    """False: float32 on the wire in both directions (BatchNorm buffers)."""
    optimise: bool = True
    """False: outside server optimisers and error feedback (BatchNorm buffers)."""
    collect: bool = False
    """True: beside their reduction, the individual values are handed to the server hook. Impossible under secure
    aggregation."""

    def to_json(self) -> dict[str, Json]:
        """A JSON object holding every field."""
        return {
            "name": self.name,
            "reducer": self.reducer.value,
            "max_abs": self.max_abs,
            "norm_bound": self.norm_bound,
            "compress": self.compress,
            "optimise": self.optimise,
            "collect": self.collect,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> GroupDeclaration:
        """The inverse of `to_json`."""
        return cls(**{**value, "reducer": Reducer(value["reducer"])})


@dataclass(frozen=True, kw_only=True, slots=True)
class StatisticDeclaration:
    """A named array a client reports; only its sum over the cohort is used."""

    name: str
    shape: tuple[int, ...] = ()
    max_abs: float = 1e9
    """Largest |value| one client may report; fixes the fixed-point scale."""
    collect: bool = False
    """True: the individual values are handed to the server hook too. Impossible under secure aggregation."""

    def to_json(self) -> dict[str, Json]:
        """A JSON object holding every field."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "max_abs": self.max_abs,
            "collect": self.collect,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> StatisticDeclaration:
        """The inverse of `to_json`."""
        return cls(**{**value, "shape": tuple(value["shape"])})


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalingDeclaration:
    """How the coordinator hands out scaling vectors (arXiv 2508.01251, Eq. 6)."""

    dimension: int
    alpha: float
    block: int | None = None
    """Scaled dimensions per client; None: floor(dimension / expected clients), at least 1."""
    allocation: str = "auto"
    """`disjoint`, `balanced`, or `auto` (disjoint while possible for every expected client)."""
    assignment: str = "client"
    """`client`: a vector belongs permanently to a client (the paper). `position`: to a position in the round's sample,
    as the official code hands them out; only to measure what persistence is worth, and only in reproducible mode."""

    def __post_init__(self) -> None:
        if self.assignment not in ("client", "position"):
            raise DeclarationError(
                f"a scaling vector belongs to a client or a position, not to {self.assignment!r}"
            )

    def to_json(self) -> dict[str, Json]:
        """A JSON object holding every field."""
        return {
            "dimension": self.dimension,
            "alpha": self.alpha,
            "block": self.block,
            "allocation": self.allocation,
            "assignment": self.assignment,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> ScalingDeclaration:
        """The inverse of `to_json`."""
        return cls(**value)


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundArtefactDeclaration:
    """A float32 array the server hook makes in every round and the next round's tasks carry."""

    name: str
    shape: tuple[int, ...]

    def to_json(self) -> dict[str, Json]:
        """A JSON object holding every field."""
        return {"name": self.name, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> RoundArtefactDeclaration:
        """The inverse of `to_json`."""
        return cls(name=value["name"], shape=tuple(value["shape"]))


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityDeclaration:
    """Representation quality measured in training rounds as additive statistics (`ssd.updates.quality_sums`)."""

    features: Mapping[str, int]
    """Which features, `h` and possibly `z`, and their dimensions."""
    frequencies: int = 4096
    """Random frequencies of the kernel-mean estimate: more are more exact and more bytes."""
    t: float = 2.0
    """Sharpness of the Gaussian kernel (Wang & Isola, 2020)."""
    images: int = 512
    """At most so many images of a client are looked at."""
    min_images: int = 64
    """A client with fewer contributes nothing: a sum over very few images says too much about each."""
    moments: bool = False
    """Also the moments that tell the kernel between clients where its frequencies cannot; runs of earlier versions
    have none."""

    def to_json(self) -> dict[str, Json]:
        """A JSON object holding every field; `moments` only if there are some, as declarations before them."""
        return {
            "features": dict(self.features),
            "frequencies": self.frequencies,
            "t": self.t,
            "images": self.images,
            "min_images": self.min_images,
            **({"moments": True} if self.moments else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> QualityDeclaration:
        """The inverse of `to_json`."""
        return cls(**value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """Everything the daemons know about the method of a run."""

    method: str
    version: int
    """Bumped when the same name starts to mean something else."""
    spec: ParameterSpec
    groups: tuple[GroupDeclaration, ...]
    """In the order of the spec's groups."""
    statistics: tuple[StatisticDeclaration, ...] = ()
    artefacts: tuple[str, ...] = ()
    """Names of the arrays computed once at run creation and served by digest."""
    scaling: ScalingDeclaration | None = None
    schedules: Mapping[str, Json] = field(default_factory=dict)
    """Per-round schedules, resolved by the coordinator (`ssd.method.schedule`) and sent as values."""
    needs_images: bool = True
    needs_labels: bool = False
    persists_client_state: bool = False
    server_hook: bool = False
    """The method has `after_reduce`, which the method host runs inside every commit."""
    round_artefacts: tuple[RoundArtefactDeclaration, ...] = ()
    """What the server hook makes for the next round. Absent from the tasks of round 1."""
    client_evaluation: bool = False
    """The method can be measured on each client's own test images (`EvaluatesClients`)."""
    quality: QualityDeclaration | None = None
    steerable: tuple[str, ...] = ()
    """Settings under which how much one client's training weighs in a sum depends on that client's own record: a rate or a
    model that it kept from its last visit. Whoever decides which visits count can then silence everybody but one, so
    secure aggregation refuses them."""
    config: Mapping[str, Json] = field(default_factory=dict)
    """The method's own configuration, fully resolved; a worker builds its method from this."""

    def __post_init__(self) -> None:
        _check_method_name(self.method)
        declared = [group.name for group in self.groups]
        if declared != list(self.spec.groups):
            raise DeclarationError(
                f"the declared groups {declared} are not the spec's groups {list(self.spec.groups)}"
            )
        names = [statistic.name for statistic in self.statistics]
        if len(set(names)) != len(names):
            raise DeclarationError(f"a statistic is declared twice: {sorted(names)}")
        if self.collects and not self.server_hook:
            raise DeclarationError("individual updates are collected for a server hook, but there is none")
        made = [*self.artefacts, *(artefact.name for artefact in self.round_artefacts)]
        if len(set(made)) != len(made):
            raise DeclarationError(f"an artefact is declared twice: {sorted(made)}")
        if self.round_artefacts and not self.server_hook:
            raise DeclarationError("round artefacts are made by a server hook, but there is none")

    @property
    def collects(self) -> bool:
        """Whether the server hook sees values of individual clients."""
        return any(group.collect for group in self.groups) or any(each.collect for each in self.statistics)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the canonical JSON form."""
        return json_digest(self.to_json())

    def group(self, name: str) -> GroupDeclaration:
        """The declaration of one group; `KeyError` if there is none."""
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    def check_scaling(self, vector: ScalingVector | None, expected_clients: int) -> None:
        """Whether a client's scaling vector is one that this declaration hands out, whichever client it belongs to.

        Args:
            vector: what a task carries.
            expected_clients: how many clients share the dimensions.

        Raises:
            DeclarationError: there should be none, or one of another dimension, alpha or number of dimensions.
        """
        declared = self.scaling
        if declared is None or vector is None:
            if (declared is None) != (vector is None):
                raise DeclarationError(
                    "the task has no scaling vector" if vector is None else "the task has a scaling vector"
                )
            return
        try:
            size = block_size(declared.dimension, expected_clients, declared.block)
        except ScalingError as error:
            raise DeclarationError(str(error)) from error
        carried = (vector.dimension, vector.alpha, len(vector.indices))
        if carried != (declared.dimension, declared.alpha, size):
            raise DeclarationError(
                f"a scaling vector of {carried[2]} of {carried[0]} dimensions times {carried[1]:g}, "
                f"not of {size} of {declared.dimension} times {declared.alpha:g}"
            )

    def to_json(self) -> dict[str, Json]:
        """A JSON object holding every field."""
        return {
            "method": self.method,
            "version": self.version,
            "spec": self.spec.to_json(),
            "groups": [group.to_json() for group in self.groups],
            "statistics": [statistic.to_json() for statistic in self.statistics],
            "artefacts": list(self.artefacts),
            "scaling": self.scaling.to_json() if self.scaling else None,
            "schedules": dict(self.schedules),
            "needs_images": self.needs_images,
            "needs_labels": self.needs_labels,
            "persists_client_state": self.persists_client_state,
            "server_hook": self.server_hook,
            "round_artefacts": [artefact.to_json() for artefact in self.round_artefacts],
            "client_evaluation": self.client_evaluation,
            "quality": self.quality.to_json() if self.quality else None,
            # Left out where there are none, so that declarations made before it have the digest they had.
            **({"steerable": list(self.steerable)} if self.steerable else {}),
            "config": dict(self.config),
        }

    def measuring_as(self, other: Declaration) -> Declaration:
        """The declaration with the quality sums that `other` has, which may be of a run of an older release."""
        if self.quality is None or other.quality is None:
            return self
        return replace(self, quality=replace(self.quality, moments=other.quality.moments))

    @classmethod
    def from_bytes(cls, content: bytes) -> Declaration:
        """A declaration as another machine sent it.

        Raises:
            DeclarationError: it is longer or nested deeper than any of ours, no JSON, or no declaration.
        """
        if len(content) > MAX_BYTES:
            raise DeclarationError(f"a declaration of {len(content)} bytes; at most {MAX_BYTES} are read")
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DeclarationError(f"a declaration that is no JSON: {str(error)[:200]}") from error
        if _deeper(value, MAX_DEPTH):
            raise DeclarationError(f"a declaration that is nested deeper than {MAX_DEPTH} times")
        try:
            return cls.from_json(value)
        except DeclarationError:
            raise
        except (ValueError, LookupError, OverflowError) as error:
            raise DeclarationError(f"not a declaration: {error}") from error

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Declaration:
        """The inverse of `to_json`.

        Raises:
            DeclarationError: a field is missing, unknown or ill typed.
        """
        try:
            fields = dict(value)
            fields["spec"] = ParameterSpec.from_json(fields["spec"])
            fields["groups"] = tuple(map(GroupDeclaration.from_json, fields["groups"]))
            fields["statistics"] = tuple(map(StatisticDeclaration.from_json, fields["statistics"]))
            fields["artefacts"] = tuple(fields["artefacts"])
            fields["steerable"] = _names(fields.get("steerable", ()))
            fields["round_artefacts"] = tuple(
                map(RoundArtefactDeclaration.from_json, fields["round_artefacts"])
            )
            if fields["scaling"] is not None:
                fields["scaling"] = ScalingDeclaration.from_json(fields["scaling"])
            if fields["quality"] is not None:
                fields["quality"] = QualityDeclaration.from_json(fields["quality"])
            return cls(**fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise DeclarationError(f"not a declaration: {error}") from error


def _names(value: Json) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise DeclarationError("steerable is a list of names")
    return tuple(value)


def _deeper(value: Json, depth: int) -> bool:
    """Whether arrays and objects lie in each other more than `depth` times."""
    level = [value]
    for _ in range(depth + 1):
        inner = [each for each in level if isinstance(each, list | dict)]
        if not inner:
            return False
        level = [item for each in inner for item in (each.values() if isinstance(each, dict) else each)]
    return True


def _check_method_name(name: object) -> None:
    """A name may come from another machine, so nothing passes that any program could take for a file."""
    if not isinstance(name, str) or not METHOD_NAME.fullmatch(name):
        raise DeclarationError(
            f"{name!r:.80} is no name of a method: it must be 1 to 64 letters, digits, '_' and '-'"
        )
