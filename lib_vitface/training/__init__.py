"""Augmentation, batches, checkpoints and the training loop."""
