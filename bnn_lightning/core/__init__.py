"""Random tensors, the methods that draw them, and the layers and networks made of them: torch alone."""
