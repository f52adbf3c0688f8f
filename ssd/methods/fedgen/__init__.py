"""FedGen (arXiv 2105.10056): a generator learnt on the coordinator that helps clients train."""
