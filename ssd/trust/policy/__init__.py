"""What a federation agrees to run: the signed policy, and what a worker keeps of it."""
