"""Diversity between seeds, fidelity to the prompt, and the network whose features both use."""
