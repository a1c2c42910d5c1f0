"""Samples of a network's outputs, and what they are worth."""
