"""docs/configuration.md from the code: `python docs/tools/configuration_page.py > docs/configuration.md` (or `make docs`)."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from coordinator.config.sections import CoordinatorConfig, is_mutable
from ssd.daemon.setting_text import Setting, Table, kind_text, tables
from ssd.daemon.toml_text import literal
from ssd.method.registry import BUILT_IN, load
from ssd.settings import to_json
from worker.config.sections import WorkerConfig

Json = Any
PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
HEAD = """\
# Configuration

This page is made from the code by `make docs`. Each daemon reads one TOML file (`--config`). A setting can also come from
the environment or from a flag (`--set round.cohort_size=5`). A flag wins over the environment, the environment over the
file, and the file over the default. Unknown keys and impossible values are refused, all at once, each with its line and
what to write instead.

```sh
ssd-coordinator config init --out coordinator.toml      # a commented file with every setting
ssd-coordinator config check --config coordinator.toml  # everything that is wrong, the method's settings included; exit code 2
ssd-coordinator config show --config coordinator.toml   # what results; --format json for programs; secrets are not shown
ssd-worker config init --out worker.toml                # the same three for a worker
```

- **Secrets** never stand in a file of settings. Settings name files (`key`, `authority_key`), and join tokens come from a
  file, standard input or the environment.
- **Values** from the environment and from `--set` are written as in TOML (`SSD_RUN_CLIENTS='["a", "b"]'`). Text and paths
  need no quotes, and lose those they have.
- **Relative paths** begin at the folder of the configuration file. A path that a variable or a flag gives, and any path if
  no file is used, begins at the working directory. `~` is the home directory.
- **Examples** stand in [deploy/config](../deploy/config).
"""
COORDINATOR = """\
## Coordinator

Settings that *may change* can have another value at the next start. All others are fixed when the run is created, and a
run refuses to go on with other values.
"""
WORKER = """\
## Worker

Every setting may change between starts.
"""
METHODS = """\
## Methods

These settings stand in `[method.config]` of the coordinator's file, and workers receive them from there. A schedule is a
table such as `{ kind = "cosine", start = 0.05, end = 0.001 }`. [Methods](methods.md) explains the methods.
"""
FAMILIES = ("fed_align_uniform", "fedavg")
"""The methods whose settings all others of their family have, too."""


def daemon_tables(found: tuple[Table, ...], *, may_change: bool) -> str:
    """One section for each table."""
    return "\n".join(_table(table, may_change=may_change) for table in found)


def _table(table: Table, *, may_change: bool) -> str:
    lines = [f"### [{table.name}]", "", table.text, ""]
    if not table.settings:
        return "\n".join(lines)
    heads = ["key", "variable", "value", "default", *(["may change"] if may_change else []), "meaning"]
    lines += _rule(heads)
    for each in table.settings:
        default = "computed" if each.computed else _default(each.default)
        cells = [f"`{each.key}`", f"`{each.variable}`", each.kind, default]
        lines.append(_row([*cells, *([changes(each)] if may_change else []), each.text]))
    return "\n".join([*lines, ""])


def changes(setting: Setting) -> str:
    """Whether an existing run accepts another value."""
    if setting.name == "run.rounds":
        return "may grow"
    return "yes" if is_mutable(setting.name) else ""


@dataclass(frozen=True, slots=True)
class Option:
    """One key of a method's configuration."""

    kind: str
    default: str
    text: str


def method_options(name: str) -> dict[str, Option]:
    """Dotted key -> what is known of it, with the defaults as the method resolves them."""
    built: Any = load(name, {})
    config = getattr(built, "config", None) or built._config
    values = (
        to_json(config) if name != "synthetic" else {f.name: getattr(config, f.name) for f in fields(config)}
    )
    return dict(_options(type(config), values, ""))


def _options(cls: type, values: Mapping[str, Json] | None, prefix: str) -> Iterator[tuple[str, Option]]:
    kinds, texts = get_type_hints(cls), _field_texts(cls)
    for field in fields(cls):
        kind, key = kinds[field.name], f"{prefix}{field.name}"
        value = values.get(field.name) if values is not None else _class_default(field)
        inner, optional = _settings_class(kind)
        if inner is None:
            yield key, Option(kind_text(kind), _default(value), texts.get(field.name, ""))
            continue
        if optional or texts.get(field.name):
            words = "table, or `false` for none" if optional else "table"
            default = "none" if value is None else ""
            yield key, Option(words, default, texts.get(field.name, ""))
        yield from _options(inner, value if isinstance(value, Mapping) else None, f"{key}.")


def _settings_class(kind: Any) -> tuple[type | None, bool]:
    if get_origin(kind) in (Union, types.UnionType):
        inner = [part for part in get_args(kind) if part is not type(None)]
        return (inner[0] if len(inner) == 1 and is_dataclass(inner[0]) else None), True
    return (kind if is_dataclass(kind) else None), False


def _class_default(field: Any) -> Json:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else "(must be given)"


def _field_texts(cls: type) -> dict[str, str]:
    """The docstrings under the fields, those of the classes it derives from included."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not is_dataclass(base):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for before, after in zip(definition.body, definition.body[1:], strict=False):
            target = before.target if isinstance(before, ast.AnnAssign) else None
            told = after.value if isinstance(after, ast.Expr) else None
            if isinstance(target, ast.Name) and isinstance(told, ast.Constant):
                found[target.id] = " ".join(str(told.value).split())
    return found


def methods() -> str:
    """One section for each built-in method; what a family has in common is said once."""
    options = {name: method_options(name) for name in BUILT_IN}
    sections = []
    for name in (*FAMILIES, *(each for each in BUILT_IN if each not in FAMILIES)):
        base = _family(name, options)
        own = {
            key: each for key, each in options[name].items() if base is None or options[base].get(key) != each
        }
        intro = "" if base is None else f"The settings of `{base}`" + (", and:\n" if own else ".\n")
        sections.append(
            f"### {name}\n\n{intro}" + ("\n" if intro and own else "") + (_method_table(own) if own else "")
        )
    return "\n".join(sections)


def _family(name: str, options: Mapping[str, Mapping[str, Option]]) -> str | None:
    return next(
        (base for base in FAMILIES if base != name and set(options[base]) <= set(options[name])), None
    )


def _method_table(options: Mapping[str, Option]) -> str:
    lines = _rule(["key", "value", "default", "meaning"])
    lines += [_row([f"`{key}`", each.kind, each.default, each.text]) for key, each in options.items()]
    return "\n".join([*lines, ""])


def _default(value: Json) -> str:
    if value is None:
        return "not set"
    if value in ("", [], {}, ()) and not isinstance(value, bool | int | float):
        return "empty"
    return f"`{literal(value)}`"


def _rule(heads: list[str]) -> list[str]:
    return [_row(heads), _row(["---"] * len(heads))]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page() -> str:
    """The whole page."""
    coordinator = daemon_tables(tables(CoordinatorConfig), may_change=True)
    worker = daemon_tables(tables(WorkerConfig), may_change=False)
    return f"{HEAD}\n{COORDINATOR}\n{coordinator}\n{WORKER}\n{worker}\n{METHODS}\n{methods()}".rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
