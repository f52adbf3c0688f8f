"""How the processes that run tests side by side share the cores."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # There is a process for each core. If each computed with a thread for each core, too, the threads would mostly
    # wait for one another; daemons that tests start inherit this. It is read when NumPy and torch are first imported.
    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(threads, "1")
