"""The coordinator's side of the method host, the one server-side process that may import torch.

It starts the process, hands it files, and checks what comes back.
"""
