"""Fields: parameters -> density and features at points of the box [-1, 1]^3.

`base` says what a field is, and any such goes into an optimisation; `radiance` has the one that
recipes take unless they say otherwise. Their parts, and backgrounds, are Flax modules.
"""
