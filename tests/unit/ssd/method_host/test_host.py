"""The method host: its protocol in process, and as the process the coordinator starts."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssd.export.encoder_file import load_encoder, load_projector, read_encoder
from ssd.method.registry import load
from ssd.method_host.host import Host, serve
from ssd.updates.declaration import Declaration
from ssd.updates.spec import model_digest

CONFIG: dict[str, Any] = {
    "image": {"size": 8, "channels": 1},
    "model": {"name": "small", "feature_dim": 16, "width": 4},
    "views": "digits",
}


def ask(op: str, host: Host | None = None, **fields: Any) -> dict[str, Any]:
    request = {"op": op, "method": "ssd", "config": CONFIG} | fields
    return (host or Host()).answer(json.dumps(request))


def test_declare_answers_with_a_declaration() -> None:
    reply = ask("declare")
    declaration = Declaration.from_json(reply["declaration"])
    assert declaration.digest == load("ssd", CONFIG).declare().digest


def test_init_writes_the_vector_and_the_artefacts_as_raw_floats(tmp_path: Path) -> None:
    reply = ask("init", seed=3, warm_start=None, out=str(tmp_path))
    method = load("ssd", CONFIG)
    vector = np.fromfile(reply["vector"]["path"], dtype="<f4")
    assert np.array_equal(vector, method.initial(3, None))
    assert reply["vector"]["shape"] == [vector.size]
    assert reply["vector"]["digest"] == model_digest(method.declare().spec, vector)
    assert reply["vector"]["path"] == str(tmp_path / "vector.f32")
    basis = reply["artefacts"]["basis"]
    assert basis["path"] == str(tmp_path / "artefact_basis.f32")
    assert basis["shape"] == [16, 16]
    assert np.fromfile(basis["path"], dtype="<f4").size == 256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artefact_basis.f32", "vector.f32"]


def test_another_part_is_exported_on_request(tmp_path: Path) -> None:
    host = Host()
    ask("init", host, seed=3, warm_start=None, out=str(tmp_path))
    where = {"vector": str(tmp_path / "vector.f32"), "out": str(tmp_path / "part.safetensors")}
    assert "path" in ask("export", host, part="projector", **where)
    load_projector(tmp_path / "part.safetensors")
    assert ask("export", host, part="head", **where)["error"]["code"] == "bad_input"
    assert ask("export", host, part=7, **where)["error"]["code"] == "bad_request"


def test_export_writes_an_encoder_that_can_be_loaded_and_started_from(tmp_path: Path) -> None:
    host = Host()
    ask("init", host, seed=3, warm_start=None, out=str(tmp_path))
    out = tmp_path / "encoder.safetensors"
    reply = ask(
        "export",
        host,
        vector=str(tmp_path / "vector.f32"),
        out=str(out),
        metadata={"run": "r1", "version": "7"},
    )
    assert reply["path"] == str(out)
    tensors, metadata = read_encoder(out)
    assert len(tensors) == reply["tensors"]
    assert (metadata["run"], metadata["version"], metadata["method"]) == ("r1", "7", "ssd")
    encoder, image = load_encoder(out)
    assert image.size == 8
    assert not encoder.training

    again = tmp_path / "again"
    again.mkdir()
    ask("init", host, seed=99, warm_start=str(out), out=str(again))
    start, other = (np.fromfile(folder / "vector.f32", dtype="<f4") for folder in (tmp_path, again))
    encoder_slice = load("ssd", CONFIG).declare().spec.groups["encoder"]
    assert np.array_equal(start[encoder_slice], other[encoder_slice])
    assert not np.array_equal(start, other)


def test_a_method_without_torch_can_be_declared_and_initialised(tmp_path: Path) -> None:
    reply = ask("init", method="synthetic", config={}, seed=1, warm_start=None, out=str(tmp_path))
    assert Path(reply["vector"]["path"]).stat().st_size == 4 * reply["vector"]["shape"][0]


@pytest.mark.parametrize(
    ("request_line", "code", "message"),
    [
        ("nonsense", "bad_request", "not a JSON line"),
        ("[1]", "bad_request", "JSON object"),
        ('{"op": "dance"}', "bad_request", "no operation 'dance'"),
        ('{"op": "declare"}', "bad_request", "'method' must be a string"),
        ('{"op": "declare", "method": "sdd"}', "bad_config", "did you mean ssd"),
        ('{"op": "declare", "method": "ssd", "config": 3}', "bad_request", "config must be an object"),
        ('{"op": "declare", "method": "ssd", "config": {"lrr": 1, "alfa": 2}}', "bad_config", "'alfa'"),
        ('{"op": "declare", "method": "gone.py"}', "bad_config", "gone.py"),
        ('{"op": "init", "method": "synthetic", "seed": "x", "out": "."}', "bad_request", "'seed'"),
        ('{"op": "init", "method": "synthetic", "seed": 1, "out": "/nowhere"}', "bad_input", "/nowhere"),
        (
            '{"op": "after_reduce", "method": "synthetic", "round": 1, "seed": 1, "inputs": {}, "out": "."}',
            "no_server_hook",
            "no server hook",
        ),
    ],
)
def test_a_bad_request_gets_an_error_with_a_code_and_the_host_goes_on(
    request_line: str, code: str, message: str
) -> None:
    host = Host()
    reply = host.answer(request_line)
    assert reply["error"]["code"] == code
    assert message in reply["error"]["message"]
    assert "declaration" in ask("declare", host)


def test_inputs_that_do_not_fit_are_named(tmp_path: Path) -> None:
    (tmp_path / "short.f32").write_bytes(b"\0" * 8)
    short = ask("export", vector=str(tmp_path / "short.f32"), out=str(tmp_path / "e"), metadata={})
    gone = ask("export", vector=str(tmp_path / "gone.f32"), out=str(tmp_path / "e"), metadata={})
    wrong = ask("init", seed=1, warm_start=str(tmp_path / "short.f32"), out=str(tmp_path))
    assert [reply["error"]["code"] for reply in (short, gone, wrong)] == ["bad_input"] * 3
    assert "has 2 values" in short["error"]["message"]
    assert "safetensors" in wrong["error"]["message"]
    assert not (tmp_path / "vector.f32").exists()


def test_what_a_method_raises_becomes_a_reply(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("def create(config):\n    raise RuntimeError('boom')\n")
    reply = ask("declare", method=str(file), config={}, id=5)
    assert reply == {"id": 5, "error": {"code": "internal", "message": "RuntimeError: boom"}}


def test_shutdown_and_end_of_input_end_it() -> None:
    lines = '{"op": "declare", "method": "synthetic", "id": "a"}\n\n{"op": "shutdown"}\n{"op": "declare"}\n'
    replies = io.StringIO()
    serve(io.StringIO(lines), replies)
    first, second = map(json.loads, replies.getvalue().splitlines())
    assert first["id"] == "a"
    assert second == {"bye": True}
    serve(io.StringIO(""), replies)


def test_the_process_keeps_everything_else_off_standard_output(tmp_path: Path) -> None:
    file = tmp_path / "chatty.py"
    file.write_text(
        "import os\n"
        "from ssd.method.registry import load\n"
        "def create(config):\n"
        "    print('hello from python')\n"
        "    os.system('echo hello from a child')\n"
        "    return load('synthetic', config)\n"
    )
    requests = [
        {"op": "declare", "method": str(file), "config": {}},
        {"op": "declare", "method": "nothing", "config": {}},
        {"op": "shutdown"},
    ]
    done = subprocess.run(
        [sys.executable, "-m", "ssd.method_host.host"],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[4],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert [sorted(reply) for reply in replies] == [["declaration"], ["error"], ["bye"]]
    assert "hello from python" in done.stderr
    assert "hello from a child" in done.stderr


def test_the_host_does_not_import_torch_for_a_method_without_it() -> None:
    program = (
        "import io, sys; from ssd.method_host.host import serve; "
        'serve(io.StringIO(\'{"op": "declare", "method": "synthetic"}\\n\'), io.StringIO()); '
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[4],
    )
    assert done.stdout.strip() == "False", done.stderr
