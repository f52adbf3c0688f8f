"""The vocabulary of secure aggregation: messages, keys, signatures, the graph of pairs, and one function per check."""
