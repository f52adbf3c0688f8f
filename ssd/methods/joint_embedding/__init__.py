"""Named self-supervised methods whose objective is one loss of two views, federated by FedAvg: one file per method.

They are the base of `ssd.methods.self_supervised` with another objective; SSD, FedDecorr and the others take the same
objectives by the setting `objective`.
"""
