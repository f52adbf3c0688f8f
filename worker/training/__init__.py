"""Training and evaluating clients, in a child process of its own: the only part of the worker that imports torch."""
