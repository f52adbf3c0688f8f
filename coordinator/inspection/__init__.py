"""What people see of a run, made once: status, provenance, progress, curves.

The operator RPC, the status page and the terminal translate these records; they do not build their own.
"""
