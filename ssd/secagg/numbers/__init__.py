"""The numbers of masked sums: rings, rounding, masks, and the plan that places values in a masked vector."""
