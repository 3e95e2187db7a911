"""Diversity between seeds, fidelity to the prompt, distances between sets, and the networks whose
features they use."""
