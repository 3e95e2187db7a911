"""Flax networks of the Stable Diffusion family, and their weights in diffusers' folder layout."""
