"""`python -m coordinator`: the same as `ssd-coordinator`."""

from coordinator.cli.main import main

if __name__ == "__main__":
    main()
