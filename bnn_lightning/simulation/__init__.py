"""Labelling loops on images whose labels are known: how many labels a rule needs, and what it spends them on."""
