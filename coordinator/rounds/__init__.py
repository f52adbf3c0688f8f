"""Running the rounds of one run: the loop that performs the effects of `core`, tasks, commits, and workers' reports."""
