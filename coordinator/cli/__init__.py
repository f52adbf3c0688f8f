"""The commands of `ssd-coordinator`: they parse arguments, call one room, and print a table or JSON.

Nothing here decides anything about rounds. Modules that need gRPC, torch or aiohttp are imported inside the command
that uses them, so that `--help` stays fast.
"""
