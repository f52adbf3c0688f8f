"""An update's way from its envelope to its verdict: envelope checks, space, the arriving body, verification."""
