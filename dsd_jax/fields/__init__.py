"""Fields: parameters -> values at points of the box [-1, 1]^3, as Flax modules.

One contract: `field.apply({"params": p}, points [n, 3]) -> (density [n], features [n, f])`.
"""
