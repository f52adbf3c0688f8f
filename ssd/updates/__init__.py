"""The exact-sum core: specs, encodings, checks, folds and model versions. It imports no torch.

A model version is a pure function of the version before it and the set of accepted updates; the laws are in the
docstrings of `fold`, `fixed_point` and `version`.
"""
