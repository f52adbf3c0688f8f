"""What the command line imports before a command runs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("arguments", [["--help"], ["rounds", "--help"], ["ca", "token", "--help"]])
def test_help_imports_nothing_that_takes_time(arguments: list[str]) -> None:
    """No torch ever; configuration, keys, numbers and network only when a command runs."""
    script = (
        "import contextlib, io, runpy, sys\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        f"    sys.argv = ['coordinator', *{arguments}]\n"
        "    runpy.run_module('coordinator', run_name='__main__')\n"
        "heavy = {'torch', 'grpc', 'aiohttp', 'asyncio', 'numpy', 'pydantic', 'cryptography', 'sqlite3', 'google.protobuf'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("[]\n", "")
