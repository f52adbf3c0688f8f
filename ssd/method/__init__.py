"""What a method is: the protocol, the registry of methods, and schedules. Imports no torch until a method is loaded."""
