"""A checkpoint behind HTTP: what requests hold, workers that predict, the server with its page, and ``bnn serve``."""
