"""The first lines of every program of ours: `python -I -S isolated.py -m MODULE …` or `-c CODE …`.

`-I` has Python ignore the working directory and every `PYTHON…` variable, `-S` has it wait with the installed packages.
So a file called `worker.py` or `random.py` that happens to lie where somebody works, or where `PYTHONPATH` points, is
not taken for ours. Here the path is put together: the standard library, then the folder this file was installed in,
then the other installed packages. That finds the same code as the process that started this one, in a checkout, too.

This file runs before there is a path, so it imports nothing but the standard library.
"""

import os
import runpy
import site
import sys


def roots() -> list[str]:
    """The folders that hold our packages: one where we are installed, two in a checkout."""
    here = os.path.abspath(__file__)
    root = os.path.dirname(os.path.dirname(os.path.dirname(here)))
    return [root, *(path for path in [os.path.join(root, "proto")] if os.path.isdir(path))]


def main() -> None:
    """Complete the path and run what the arguments name."""
    sys.path += roots()
    site.main()
    kind, what, *arguments = sys.argv[1:]
    sys.argv = [kind, *arguments]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<command>", "exec"), {"__name__": "__main__"})  # noqa: S102  # the parent's own text


if __name__ == "__main__":
    main()
