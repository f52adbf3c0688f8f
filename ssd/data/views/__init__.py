"""The random views that self-supervised training sees."""
