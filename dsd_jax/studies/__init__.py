"""Comparisons: make what is missing, then judge."""
