"""How the processes that run tests side by side share the cores, and which examples property tests try."""

from __future__ import annotations

import os

from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # There is a process for each core. If each computed with a thread for each core, too, the threads would mostly
    # wait for one another; daemons that tests start inherit this. It is read when NumPy and torch are first imported.
    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(threads, "1")

# The same examples in every run: whether the suite passes depends on the code alone. `make test-long` looks for new ones.
# How long one takes depends on what else the machine does.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("SSD_HYPOTHESIS", "repeatable"))
