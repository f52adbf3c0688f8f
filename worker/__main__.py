"""`python -m worker`: the same as `ssd-worker`."""

from worker.cli import main

if __name__ == "__main__":
    main()
