"""A daemon's configuration: one frozen typed tree out of a TOML file, the environment and flags.

A daemon describes its tree in pydantic models (`Section`); the docstring under each setting is its documentation. `load`
reads and checks it, and reports every mistake at once, each with file, line, table, key and what to write instead.

A relative path begins at the folder of the configuration file. One that a flag or a variable gives, or any where there is
no file, begins at the working directory. `~` is the home directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from ssd.daemon.address import parse_address
from ssd.daemon.config_sources import ConfigError, Key, Sources, gather
from ssd.daemon.mistakes import mistake
from ssd.daemon.suggest import nearest
from ssd.daemon.tracing.setup import check_endpoint

Json = Any
Contradictions = Iterable[tuple[tuple[Key, ...], str]]
"""What contradicts what: (the settings concerned, the first being the one to report; what is wrong and what to do)."""
_CLIENT = re.compile(r"[A-Za-z0-9._-]{1,128}")


def as_tuple(value: object) -> object:
    """TOML's arrays are lists; a frozen tree holds tuples."""
    return tuple(value) if isinstance(value, list) else value


def _as_path(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str) and value else value


def _as_paths(value: object) -> object:
    return {key: _as_path(item) for key, item in value.items()} if isinstance(value, dict) else value


def _address(value: str) -> str:
    return str(parse_address(value)) if value else value


def _some_address(value: str) -> str:
    return str(parse_address(value))


def check_client_ids(value: Iterable[str]) -> None:
    """Whether all of them can be ids of clients, and none stands there twice.

    Raises:
        ValueError: saying what an id looks like.
    """
    seen = set()
    for client in value:
        if _CLIENT.fullmatch(client) is None:
            raise ValueError(f"{client!r} is no client id: use 1 to 128 of A-Z a-z 0-9 . _ -")
        if client in seen:
            raise ValueError("a client is named twice")
        seen.add(client)


ConfigPath = Annotated[Path, BeforeValidator(_as_path)]
PathTable = Annotated[Mapping[str, Path], BeforeValidator(_as_paths)]
AddressText = Annotated[str, AfterValidator(_some_address)]
OptionalAddressText = Annotated[str, AfterValidator(_address)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Section(BaseModel):
    """One table of a configuration, or the whole tree. Frozen; unknown keys are refused, and nothing is converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    def resolved(self) -> dict[str, Json]:
        """The tree as a JSON object, every setting present."""
        result: dict[str, Json] = self.model_dump(mode="json")
        return result


class LogSection(Section):
    """`[log]`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe events written."""
    format: Literal["auto", "human", "json"] = "auto"
    """`auto`: human on a terminal, JSON otherwise."""


class TracingSection(Section):
    """`[tracing]`: traces of rounds for an OpenTelemetry collector (docs/tracing.md)."""

    endpoint: Annotated[str, AfterValidator(check_endpoint)] = ""
    """The collector's OTLP/gRPC address: http://host:4317 or https://host:4317; empty: no traces."""
    share: Share = 1.0
    """Of the attempts at rounds, how many are traced. Daemons with the same share trace the same ones."""
    service_name: Annotated[str, Field(min_length=1, max_length=128)] = "ssd"
    """Under which it appears in the collector."""
    root_certificates: ConfigPath | None = None
    """PEM file of who may vouch for an https collector; without it, whom gRPC trusts by itself."""


Root = TypeVar("Root", bound=Section)


def load(
    root: type[Root],
    path: Path | None,
    flags: Mapping[str, Json] | None,
    environ: Mapping[str, str] | None,
    contradictions: Callable[[Root], Contradictions],
) -> Root:
    """A configuration from a file, the environment and flags (flag over environment over file over default).

    Args:
        root: the class of the whole tree.
        path: the TOML file, or None for none.
        flags: dotted key -> value, for example {"log.level": "debug"}; None counts as not given. Text is read as a TOML
            value where the setting is not itself text; text in quotes loses them.
        environ: where SSD_<TABLE>_<KEY> is looked up; None: the process environment.
        contradictions: what is wrong between settings that are valid one by one.

    Raises:
        ConfigError: with one line for every mistake.
    """
    sections = _sections(root)
    tables = {name: _holds_text(section) for name, section in sections.items()}
    sources = gather(path, flags or {}, os.environ if environ is None else environ, tables)
    problems: list[str] = []
    wrong: set[Key] = set()
    try:
        config = root.model_validate(sources.values)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            key = tuple(str(part) for part in detail["loc"])
            wrong.add(key[:2])
            problems.append(_problem(sources, key, _explain(detail, root, sections)))
        # The rest of the tree is sound: its own contradictions are worth hearing about in the same breath.
        config = root.model_validate(_without(sources.values, wrong))
    config = _beside(config, sources)
    for keys, message in contradictions(config):
        if not any(key[: len(bad)] == bad for key in keys for bad in wrong):
            problems.append(_problem(sources, keys[0], message))
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return config


def _sections(root: type[Section]) -> dict[str, type[Section]]:
    """The tables with settings of their own; those of free keys are not among them."""
    kinds = {name: info.annotation for name, info in root.model_fields.items()}
    return {
        name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Section)
    }


def _beside(config: Root, sources: Sources) -> Root:
    """The configuration with relative paths that come from the file, or from defaults, begun at the file's folder."""
    if sources.file is None:
        return config
    folder = sources.file.parent

    def begun(value: Any, key: Key) -> Any:
        if isinstance(value, Section):
            changed = {name: begun(item, (*key, name)) for name, item in value}
            # What was left out must go on counting as left out.
            return value.model_copy(
                update={name: new for name, new in changed.items() if new is not getattr(value, name)}
            )
        if isinstance(value, Mapping) and any(isinstance(item, Path) for item in value.values()):
            return {name: begun(item, (*key, name)) for name, item in value.items()}
        return folder / value if isinstance(value, Path) and not sources.override(key) else value

    moved: Root = begun(config, ())
    return moved


def _problem(sources: Sources, key: Key, message: str) -> str:
    table, *rest = key
    name = f"[{table}] {'.'.join(rest)}" if rest else f"[{table}]"
    return f"{sources.where(key)}: {name}: {message}"


def _explain(detail: ErrorDetails, root: type[Section], sections: Mapping[str, type[Section]]) -> str:
    *parents, name = (str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        if not parents:
            return f"unknown table{nearest(name, list(root.model_fields))}"
        return f"unknown key{_right_key(name, parents[0], sections)}"
    return mistake(detail)


def _right_key(name: str, table: str, sections: Mapping[str, type[Section]]) -> str:
    for other, section in sections.items():
        if other != table and name in section.model_fields:
            return f"; it belongs into [{other}]"
    return nearest(name, list(sections[table].model_fields))


def _holds_text(section: type[Section]) -> Callable[[str], bool]:
    fields = section.model_fields
    return lambda key: key in fields and _is_text(fields[key].annotation)


def _is_text(kind: object) -> bool:
    """Whether a value of this type is written as text: `str`, `Path | None`, a choice of words."""
    if get_origin(kind) in {Annotated, Literal, Union, UnionType}:
        return any(_is_text(part) for part in get_args(kind))
    return kind in {str, Path} or isinstance(kind, str)


def _without(values: Mapping[str, Json], wrong: set[Key]) -> dict[str, Json]:
    kept: dict[str, Json] = {}
    for table, section in values.items():
        if (table,) in wrong:
            continue
        kept[table] = {key: value for key, value in section.items() if (table, key) not in wrong}
    return kept
