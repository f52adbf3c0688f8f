"""An encoder in the forms that others load: `ssd export` (`docs/taking-the-model-home.md`)."""
