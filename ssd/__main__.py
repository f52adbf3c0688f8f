"""`python -m ssd` is the `ssd` command."""

from ssd.cli import main

if __name__ == "__main__":
    main()
