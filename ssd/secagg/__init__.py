"""Secure aggregation: double masking (Bonawitz et al., CCS 2017) over exact integer sums.

The pieces are pure: no network, no clock; randomness comes in as an argument. Cryptographic primitives are those of
`cryptography`; the only arithmetic of our own is Shamir's.
"""
