"""Pictures of a run: PNG files drawn without a display."""
