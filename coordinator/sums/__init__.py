"""The sum of a round attempt: the port, the plain sum in the clear, and what sums cost in privacy.

A sum takes verified updates in any order and opens once, when the accepted set is journaled. The masked sum is in
`coordinator.secure_aggregation`. What a sum is made of lives in `ssd.updates`; nothing here knows gRPC or files.
"""
