"""From a method's name, or a user's own file, to a method built from its configuration.

Every method lives in a module with a function `create(config) -> Method`. Modules are imported only when
asked for, so a process that runs `synthetic` never imports torch.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from ssd.method.protocol import Method

BUILT_IN = {
    "ssd": "ssd.methods.self_supervised.ssd",
    "fed_align_uniform": "ssd.methods.self_supervised.fed_align_uniform",
    "feddecorr": "ssd.methods.self_supervised.feddecorr",
    "fedavg": "ssd.methods.supervised.fedavg",
    "fedprox": "ssd.methods.supervised.fedprox",
    "fedu2": "ssd.methods.self_supervised.fedu2",
    "fedx": "ssd.methods.self_supervised.fedx",
    "ldawa": "ssd.methods.self_supervised.ldawa",
    "local_only_ssl": "ssd.methods.self_supervised.local_only_ssl",
    "fedgen": "ssd.methods.fedgen.method",
    "backbone_distillation": "ssd.methods.supervised.backbone_distillation",
    "local_only": "ssd.methods.supervised.local_only",
    "synthetic": "ssd.methods.synthetic.method",
}


class MethodError(ValueError):
    """There is no such method, or its module offers no `create`."""


def load(name_or_file: str, config: Mapping[str, Any]) -> Method:
    """Build a method: a built-in one by name, or `path/to/file.py` with a function `create(config)`.

    A file is *code that runs with this process's rights*; only the method host and the worker's training
    process load one, and only because their own operator named it.

    Raises:
        MethodError: unknown name, unreadable file, or no `create` in it.
        Exception: whatever `create` raises for a configuration it does not accept (ValueError by custom).
    """
    module = _load_file(Path(name_or_file)) if name_or_file.endswith(".py") else _load_name(name_or_file)
    create = getattr(module, "create", None)
    if not callable(create):
        raise MethodError(f"{name_or_file} has no function create(config)")
    return cast("Method", create(dict(config)))


def _load_name(name: str) -> ModuleType:
    if name not in BUILT_IN:
        near = difflib.get_close_matches(name, BUILT_IN, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(BUILT_IN))}"
        raise MethodError(f"unknown method {name!r}; {hint} (a file must end in .py)")
    return importlib.import_module(BUILT_IN[name])


def _load_file(path: Path) -> ModuleType:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise MethodError(f"cannot read the method file {path}: {error.strerror}") from error
    # Named by content: two files called method.py do not shadow each other, and an edited one is not stale.
    name = f"ssd_method_{hashlib.sha256(source).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise MethodError(f"cannot load the method file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it is being executed
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
