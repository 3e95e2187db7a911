"""Training of the embedded prior: what `experiments/train_prior.py` is made of."""
