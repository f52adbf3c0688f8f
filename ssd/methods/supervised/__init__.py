"""Supervised methods: FedAvg, FedProx, backbone distillation, local training.

A method of one's own derives from what is named here; the other modules of this room may change.
"""

from ssd.methods.supervised.base import Batch, Context, Loss, Supervised, SupervisedConfig, resolve

__all__ = ["Batch", "Context", "Loss", "Supervised", "SupervisedConfig", "resolve"]
