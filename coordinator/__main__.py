"""`python -m coordinator` is `ssd-coordinator`."""

from coordinator.cli import main

main()
