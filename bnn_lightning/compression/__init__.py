"""Weights that carry no signal: which, how many, and smaller networks without them."""
