"""What torch is worth on this host: `python -m ssd.torch_support.torch_probe DEVICE` prints one JSON object.

A process of its own, because an import may crash, hang or take half a minute, and the daemons never import torch.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from typing import Any

Json = Any


def probe(device: str) -> dict[str, Json]:
    """Versions, whether torchvision can be imported, the CUDA devices, and a small matrix product on one of them.

    Args:
        device: auto, cpu, cuda or cuda:N.
    """
    import torch

    told: dict[str, Json] = {"torch": torch.__version__, "cuda_build": torch.version.cuda, "devices": []}
    try:
        from ssd.torch_support.torchvision_compat import torchvision

        told["torchvision"] = torchvision().__version__
        needs = [
            need for need in metadata.requires("torchvision") or [] if need.split()[0].startswith("torch")
        ]
        told["torchvision_needs"] = next((need for need in needs if ";" not in need), "")
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the finding
        told["torchvision_error"] = f"{type(error).__name__}: {error}"
    try:
        if torch.cuda.is_available():
            for number in range(torch.cuda.device_count()):
                free, total = torch.cuda.mem_get_info(number)
                name = torch.cuda.get_device_name(number)
                told["devices"].append({"name": name, "free": free, "total": total})
        where = ("cuda" if told["devices"] else "cpu") if device == "auto" else device
        a = torch.arange(64, dtype=torch.float32, device=where).reshape(8, 8)
        told["computed"] = bool((a @ torch.eye(8, device=where)).equal(a))
        told["device"] = where
    except Exception as error:  # noqa: BLE001  # drivers raise nearly anything
        told["device_error"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return told


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(sys.argv[1])) + "\n")
