"""Command lines without the second that Python needs to import a program: a server imports it once and forks for each.

Every command is still a process of its own with the caller's arguments, folder, environment, standard input, output and
error, and with its exit code. Only the beginning is shared: `warm_programs.py serve SOCKET MODULE ...` imports the
modules, `warm_programs.py call SOCKET MODULE ARGUMENT ...` asks for `MODULE.main()`. Nothing that is imported may have
started threads (grpc would), because a fork takes only one along.
"""

from __future__ import annotations

import array
import json
import os
import socket
import sys

_HEAD_BYTES = 8


def call(path: str, module: str, arguments: list[str]) -> int:
    """Have one command executed; its exit code."""
    told = {"module": module, "arguments": arguments, "folder": os.getcwd(), "variables": dict(os.environ)}
    body = json.dumps(told).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        mine = array.array("i", [0, 1, 2])
        head = len(body).to_bytes(_HEAD_BYTES, "big")
        connection.sendmsg([head], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, mine)])
        connection.sendall(body)
        answer = connection.recv(1)
    return answer[0] if answer else 1


def serve(path: str, modules: list[str]) -> None:
    """Import the modules and execute commands, one after the other, until killed."""
    import importlib  # (a caller has no use for it)

    for module in modules:
        importlib.import_module(module)
    assert "grpc" not in sys.modules
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection:
                head, descriptors, _, _ = socket.recv_fds(connection, _HEAD_BYTES, 3)
                with connection.makefile("rb") as body:
                    told = json.loads(body.read(int.from_bytes(head, "big")))
                process = os.fork()
                if process == 0:
                    listener.close()
                    _become(told, descriptors)
                for descriptor in descriptors:
                    os.close(descriptor)
                connection.sendall(bytes([os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) & 0xFF]))


def _become(told: dict[str, object], descriptors: list[int]) -> None:
    """Be the command, and end."""
    code = 1
    try:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        os.chdir(str(told["folder"]))
        os.environ.clear()
        os.environ.update(told["variables"])  # type: ignore[arg-type]  # of the caller above
        sys.argv = [str(told["module"]), *told["arguments"]]  # type: ignore[misc]
        code = sys.modules[str(told["module"])].main()
    except SystemExit as ended:
        code = ended.code  # type: ignore[assignment]
    finally:
        if (fault := sys.exception()) is not None:
            sys.excepthook(type(fault), fault, fault.__traceback__)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], sys.argv[3:])
    sys.exit(call(sys.argv[2], sys.argv[3], sys.argv[4:]))
