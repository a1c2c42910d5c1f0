"""What a network's outputs mean, and what a label is."""
