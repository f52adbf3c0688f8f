"""The method host: the one server-side process that may import torch.

The coordinator runs `python -m ssd.method_host.host` and speaks line-delimited JSON with it: one request object per line on
standard input, one reply object per line on standard output, in order. Arrays travel as files of raw
little-endian float32; those of a server hook as described in `ssd.method_host.hook`. The host is stateless between
requests (it keeps a built method as a cache only), so it can be killed and restarted at any point. It computes on
one thread, which whoever starts it must say in its environment: numpy reads that as soon as it is loaded.

| request | reply |
| --- | --- |
| `{"op": "declare", "method", "config"}` | `{"declaration": {...}}` |
| `{"op": "init", "method", "config", "seed", "warm_start": path or null, "out": directory}` | `{"vector": {"path", "shape", "digest"}, "artefacts": {name: {"path", "shape"}}}` |
| `{"op": "export", "method", "config", "vector": path, "out": path, "metadata": {}, "part": name or null}` | `{"path", "tensors": count}` |
| `{"op": "after_reduce", "method", "config", "seed", "round", "rounds", "weight", "clients", "values": {}, "base": array, "delta": array, "statistics": array, "state": {name: array}, "artefacts": {name: array}, "collected": [{"client", "weight", "values": array, "statistics": array}], "out": directory}` | `{"delta": array or null, "state": {name: array}, "artefacts": {name: array}, "metrics": {}}` |
| `{"op": "shutdown"}` | `{"bye": true}`, then the process ends |

An array is `{"path"}` of a `.npy` file or `{"path", "shape"}` of raw float32; `statistics` and `values` are flat. A
request may carry an `id`, which its reply repeats. A failed request is answered `{"error": {"code", "message"}}`
and the host goes on; codes: `bad_request`, `bad_config`, `bad_input`, `no_server_hook`, `hook_failed` (the hook
raised or returned what it may not), `storage` (a result could not be written), `internal`. Everything else that
would reach standard output (a library's print, even from C) goes to standard error. End of input ends the
process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ssd.export.encoder_file import encoder_metadata, tensors_of_part, write_encoder
from ssd.files import write_atomically
from ssd.method.protocol import Method, ServerHook
from ssd.method.registry import load
from ssd.method_host.hook import HookFailed, HookInputInvalid, call_hook, read_reduction, write_result
from ssd.updates.declaration import Declaration
from ssd.updates.quality_sums import artefacts as quality_artefacts
from ssd.updates.spec import model_digest

Json = Any
Vector = NDArray[np.float32]
Operation = Callable[[Mapping[str, Json]], dict[str, Json]]


class Refused(Exception):  # a reply, not a fault of this program
    """A request that gets an error reply; the code is part of the protocol."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Host:
    """Answers requests; one instance per process."""

    def __init__(self) -> None:
        self._key = ""
        self._method: Method | None = None
        self._operations: dict[str, Operation] = {
            "declare": self._declare,
            "init": self._init,
            "export": self._export,
            "after_reduce": self._after_reduce,
        }

    def answer(self, line: str) -> dict[str, Json]:
        """The reply to one request line; never raises."""
        identity: dict[str, Json] = {}
        try:
            request = _parse(line)
            identity = {"id": request["id"]} if "id" in request else {}
            return identity | self._operation(request)(request)
        except Refused as refusal:
            return identity | _error(refusal.code, str(refusal))
        except Exception as error:  # noqa: BLE001  # whatever a method raises must become a reply
            traceback.print_exc(file=sys.stderr)
            return identity | _error("internal", f"{type(error).__name__}: {error}")

    def _operation(self, request: Mapping[str, Json]) -> Operation:
        name = _text(request, "op")
        if name not in self._operations:
            raise Refused("bad_request", f"no operation {name!r}; there are {', '.join(self._operations)}")
        return self._operations[name]

    def _load(self, request: Mapping[str, Json]) -> Method:
        name, config = _text(request, "method"), request.get("config", {})
        if not isinstance(config, Mapping):
            raise Refused("bad_request", "config must be an object")
        key = json.dumps([name, config], sort_keys=True)
        if self._method is None or key != self._key:
            try:
                self._method, self._key = load(name, config), key
            except (ValueError, LookupError, OSError, ImportError) as error:
                raise Refused("bad_config", str(error)) from error
        return self._method

    def _declare(self, request: Mapping[str, Json]) -> dict[str, Json]:
        return {"declaration": self._declaration(self._load(request)).to_json()}

    def _declaration(self, method: Method) -> Declaration:
        try:
            declaration = method.declare()
        except ValueError as error:
            raise Refused("bad_config", str(error)) from error
        if declaration.server_hook and not isinstance(method, ServerHook):
            raise Refused(
                "bad_config", f"method {declaration.method} declares a server hook but has no after_reduce"
            )
        return declaration

    def _init(self, request: Mapping[str, Json]) -> dict[str, Json]:
        method, seed = self._load(request), _whole(request, "seed")
        out = _directory(request)
        declaration = self._declaration(method)
        warm_start = request.get("warm_start")
        try:
            vector = method.initial(seed, None if warm_start is None else Path(warm_start))
            artefacts = method.artefacts(seed)
        except (ValueError, OSError) as error:
            raise Refused("bad_input", str(error)) from error
        if sorted(artefacts) != sorted(declaration.artefacts):
            raise Refused(
                "internal",
                f"the method declares the artefacts {list(declaration.artefacts)} but made {sorted(artefacts)}",
            )
        if declaration.quality is not None:
            # Methods need not know: what is measured beside training belongs to the system.
            artefacts = {**artefacts, **quality_artefacts(declaration.quality, seed)}
        written = _write_array(out / "vector.f32", vector)
        return {
            "vector": written | {"digest": model_digest(declaration.spec, vector)},
            "artefacts": {
                name: _write_array(out / f"artefact_{name}.f32", array) for name, array in artefacts.items()
            },
        }

    def _export(self, request: Mapping[str, Json]) -> dict[str, Json]:
        method, out = self._load(request), Path(_text(request, "out"))
        declaration = self._declaration(method)
        metadata = request.get("metadata", {})
        if not isinstance(metadata, Mapping) or not all(isinstance(v, str) for v in metadata.values()):
            raise Refused("bad_request", "metadata must be an object of strings")
        vector = _read_array(Path(_text(request, "vector")))
        if vector.size != declaration.spec.size:
            raise Refused(
                "bad_input", f"the vector has {vector.size} values, the method {declaration.spec.size}"
            )
        part = None if request.get("part") is None else _text(request, "part")
        try:
            tensors = (
                method.export(vector) if part is None else tensors_of_part(declaration.spec, vector, part)
            )
        except ValueError as error:
            raise Refused("bad_input", str(error)) from error
        described = {**metadata, **encoder_metadata(declaration.config), "method": declaration.method}
        try:
            write_encoder(out, tensors, described, part=part)
        except OSError as error:
            raise Refused("bad_input", f"cannot write {out}: {error}") from error
        return {"path": str(out), "tensors": len(tensors)}

    def _after_reduce(self, request: Mapping[str, Json]) -> dict[str, Json]:
        method, out = self._load(request), _directory(request)
        declaration = self._declaration(method)
        if not declaration.server_hook or not isinstance(method, ServerHook):
            raise Refused("no_server_hook", f"the method {request['method']!r} has no server hook")
        for key in ("seed", "round", "rounds", "weight", "clients"):
            _whole(request, key)
        try:
            result = call_hook(method, declaration, read_reduction(declaration, request))
        except HookInputInvalid as error:
            raise Refused("bad_input", str(error)) from error
        except HookFailed as error:
            traceback.print_exc(file=sys.stderr)
            raise Refused("hook_failed", str(error)) from error
        try:
            return write_result(result, out)
        except OSError as error:
            raise Refused("storage", f"{out}: writing what the server hook made failed: {error}") from error


def _parse(line: str) -> dict[str, Json]:
    try:
        request = json.loads(line)
    except ValueError as error:
        raise Refused("bad_request", f"not a JSON line: {error}") from error
    if not isinstance(request, dict):
        raise Refused("bad_request", "a request is a JSON object")
    return request


def _text(request: Mapping[str, Json], key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str):
        raise Refused("bad_request", f"{key!r} must be a string, got {value!r}")
    return value


def _whole(request: Mapping[str, Json], key: str) -> int:
    value = request.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refused("bad_request", f"{key!r} must be a whole number, got {value!r}")
    return value


def _directory(request: Mapping[str, Json]) -> Path:
    path = Path(_text(request, "out"))
    if not path.is_dir():
        raise Refused("bad_input", f"{path} is not a directory")
    return path


def _write_array(path: Path, array: NDArray[np.float32]) -> dict[str, Json]:
    write_atomically(path, np.ascontiguousarray(array, dtype="<f4").tobytes())
    return {"path": str(path), "shape": list(array.shape)}


def _read_array(path: Path) -> Vector:
    try:
        return np.fromfile(path, dtype="<f4").astype(np.float32, copy=False)
    except OSError as error:
        raise Refused("bad_input", f"cannot read {path}: {error}") from error


def _error(code: str, message: str) -> dict[str, Json]:
    return {"error": {"code": code, "message": message}}


def _claim_stdout() -> TextIO:
    """The real standard output for replies; everything else that writes to it now reaches standard error."""
    sys.stdout.flush()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return replies


def serve(requests: TextIO, replies: TextIO) -> None:
    """Answer requests until `shutdown` or the end of input."""
    host = Host()
    for line in requests:
        if not line.strip():
            continue
        reply = {"bye": True} if _is_shutdown(line) else host.answer(line)
        replies.write(json.dumps(reply, allow_nan=False, ensure_ascii=True) + "\n")
        replies.flush()
        if "bye" in reply:
            return


def _is_shutdown(line: str) -> bool:
    try:
        request = json.loads(line)
    except ValueError:
        return False
    return isinstance(request, dict) and request.get("op") == "shutdown"


def main() -> None:
    """Entry point of `python -m ssd.method_host.host`."""
    signal.signal(
        signal.SIGHUP, signal.SIG_IGN
    )  # the end of a terminal reaches the whole group; the coordinator goes on
    replies = _claim_stdout()
    serve(sys.stdin, replies)


if __name__ == "__main__":
    main()
