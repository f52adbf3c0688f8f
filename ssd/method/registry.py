"""From a method's name, or a user's own file, to a method built from its configuration.

Every method lives in a module with a function `create(config) -> Method`. Modules are imported only when
asked for, so a process that runs `synthetic` never imports torch.

There are two ways in, by who chose the name. `built_in` takes a name from anywhere, also from another machine. `load`
and `from_file` also run files, and are only for what this machine's own operator wrote.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from ssd.daemon.suggest import nearest
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
    "simclr": "ssd.methods.joint_embedding.simclr",
    "vicreg": "ssd.methods.joint_embedding.vicreg",
    "barlow_twins": "ssd.methods.joint_embedding.barlow_twins",
    "synthetic": "ssd.methods.synthetic.method",
}


class MethodError(ValueError):
    """There is no such method, or its module offers no `create`."""


def load(name_or_file: str, config: Mapping[str, Any]) -> Method:
    """Build the method that one's own configuration or command line names: built in, or `path/to/file.py`.

    A file is *code that runs with this process's rights*. Nothing that another machine sent may get here: what is
    received goes to `built_in`, which opens no file. A test lists the modules that may call this function.

    Raises:
        MethodError: unknown name, unreadable file, or no `create` in it.
        Exception: whatever `create` raises for a configuration it does not accept (ValueError by custom).
    """
    if name_or_file.endswith(".py"):
        return from_file(Path(name_or_file), config)
    return built_in(name_or_file, config, " (a file must end in .py)")


def built_in(name: str, config: Mapping[str, Any], advice: str = "") -> Method:
    """Build the method of this name, which may come from anywhere: whatever is not in `BUILT_IN` is refused.

    Raises:
        MethodError: no built-in method has this name; `advice` follows the name.
        Exception: as `load`.
    """
    return _create(importlib.import_module(BUILT_IN[built_in_name(name, advice)]), name, config)


def built_in_name(name: str, advice: str = "") -> str:
    """`name`, if a built-in method has it.

    Raises:
        MethodError: none has. `advice` follows the name.
    """
    if name not in BUILT_IN:
        raise MethodError(f"unknown method {name!r}{advice}{nearest(name, BUILT_IN)}")
    return name


def from_file(path: Path, config: Mapping[str, Any]) -> Method:
    """Run a Python file that one's own operator named, and build its method.

    Raises:
        MethodError: it cannot be read, or has no `create`.
        Exception: whatever the file or its `create` raises.
    """
    return _create(_load_file(path), str(path), config)


def _create(module: ModuleType, source: str, config: Mapping[str, Any]) -> Method:
    create = getattr(module, "create", None)
    if not callable(create):
        raise MethodError(f"{source} has no function create(config)")
    return cast("Method", create(dict(config)))


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
