"""Which client gets which images: Dirichlet and other splits, held-out shares, portions."""
