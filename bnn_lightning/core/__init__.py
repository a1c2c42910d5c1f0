"""Posteriors, priors, methods and Bayesian layers, and functions over whole networks; imports torch alone."""
