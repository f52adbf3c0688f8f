"""The method library: federated self-supervised learning, usable without any network."""
