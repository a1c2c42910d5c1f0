"""Numerical building blocks: noise, softplus, the Gaussian KL, memory formats, compiled loops.

Most exist for speed. The docstring of each function gives the plain formula that it computes, and a test compares both.
"""
