"""Checkpoints without a Trainer: the frozen record of a file, and the network, likelihood and calibration in it."""
