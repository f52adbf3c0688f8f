"""A method without images or torch, for tests and benchmarks of the daemons."""
