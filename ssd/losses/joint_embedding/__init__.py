"""Losses of two views' embeddings that are objectives of their own, in place of alignment plus uniformity.

Each takes the projector's outputs of the two views, [N, D] each, and gives a scalar that is finite for any finite input.
"""
