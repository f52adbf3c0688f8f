"""What server hooks make of individual updates: numpy in float64, no torch, one client in memory at a time."""
