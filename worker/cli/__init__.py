"""The commands of `ssd-worker`: they parse arguments, call one room, and print."""
