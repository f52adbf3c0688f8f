"""`python -m worker`: the same as `ssd-worker`."""

import sys

from worker.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
