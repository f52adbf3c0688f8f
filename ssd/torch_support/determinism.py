"""Run torch so that the same task gives the same bits, and leave the process as it was found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def deterministic(device: torch.device, threads: int) -> Iterator[None]:
    """Fix the intra-op thread count and, on CUDA, forbid non-deterministic kernels.

    One and two threads give different bits, so the count is part of a task. On the CPU every operation we use
    is deterministic for a fixed count. cuBLAS reads its workspace setting when it is first used: on CUDA this
    must be the first use of the device in the process, or the variable must already be set.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        if device.type == "cuda":
            with _deterministic_cuda():
                yield
        else:
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _deterministic_cuda() -> Iterator[None]:
    os.environ.setdefault(CUBLAS_WORKSPACE, ":4096:8")
    cudnn = torch.backends.cudnn
    algorithms = torch.are_deterministic_algorithms_enabled()
    flags = (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    torch.use_deterministic_algorithms(True)
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms)
        cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = flags
