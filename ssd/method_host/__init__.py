"""The method host: a process that declares a method, makes its first model, and runs its server hook."""
