"""`python -m worker`: the same as `ssd-worker`."""

import sys

from ssd.daemon.child_process import one_blas_thread

if __name__ == "__main__":
    one_blas_thread()  # before anything imports numpy
    from worker.cli.main import main

    sys.exit(main())
