"""Server steps that need each update by itself, as numpy in float64: no torch, one client in memory at a time."""
