"""The terms of the SSD objective (arXiv 2508.01251), one file per term.

Every function is pure: tensors in, a scalar tensor out, no state and no randomness. Where the paper's text and
its official code disagree, the disagreement is an option; `presets` holds both readings.
"""
