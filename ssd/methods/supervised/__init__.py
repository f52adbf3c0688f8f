"""Supervised methods: FedAvg, FedProx, backbone distillation, local training."""
