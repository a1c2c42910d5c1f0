"""Removal of weights that carry no signal: which weights, what it costs, and a smaller network without them."""
