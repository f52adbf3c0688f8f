"""What the torch probe tells of this host is what torch says."""

from __future__ import annotations

import torch

from ssd.daemon.doctor.software import judge_torch
from ssd.torch_support.torch_probe import probe


def test_the_cpu_computes_and_torchvision_is_there() -> None:
    told = probe("cpu")
    assert told["torch"] == torch.__version__
    assert (told["computed"], told["device"]) == (True, "cpu")
    assert "torchvision_error" not in told
    assert "torch" in told["torchvision_needs"]
    assert [each.level.value for each in judge_torch(told, "cpu")][1] == "ok"


def test_a_device_that_is_not_there_is_told_and_not_raised() -> None:
    told = probe("cuda:99")
    assert told["device_error"]
    assert [each.level.value for each in judge_torch(told, "cuda:99")][-1] == "fault"
