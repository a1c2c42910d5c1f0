"""Evaluation: samples of a network's outputs, metrics of the predictions with their errors, OOD detection."""
