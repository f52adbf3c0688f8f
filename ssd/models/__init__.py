"""Backbones, the projector, and the flat vector they travel as."""
