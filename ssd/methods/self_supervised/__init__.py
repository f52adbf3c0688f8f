"""Self-supervised methods: alignment and uniformity, SSD, and the methods compared with it.

A method of one's own derives from what is named here; the other modules of this room may change.
"""

from ssd.methods.self_supervised.base import AlignUniform

__all__ = ["AlignUniform"]
