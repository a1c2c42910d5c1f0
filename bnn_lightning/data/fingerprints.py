"""Fingerprints of examples, by which a test set that has training examples is recognised."""

import numpy as np
import torch
from torch import Tensor

_CHUNK = 1 << 24  # numbers that are hashed at once
_DIGITS = 16


def fingerprints(inputs: Tensor) -> list[str]:
    """16 hexadecimal digits for each example, the same for equal ones.

    They are sum_i r_i x_i mod 2^64 of the numbers x_i of an example, taken as integers, and random r_i: two different
    examples have the same one with a probability below 2^-32, for 8-bit pixels below 2^-56.

    Args:
        inputs: ``(examples, ...)``, uint8 or float32, before anything is scaled that depends on other examples.
    """
    flat = inputs.flatten(1)
    if flat.is_floating_point():
        flat = flat.contiguous().view(torch.int32)
    factors = np.random.default_rng(0).integers(0, 2**64, flat.shape[1], dtype=np.uint64)
    rows = max(1, _CHUNK // max(1, flat.shape[1]))
    sums = [chunk.numpy().astype(np.uint64) @ factors for chunk in flat.split(rows)]
    return [f"{number:0{_DIGITS}x}" for number in np.concatenate(sums).tolist()] if sums else []


def joined(of_examples: list[str]) -> str:
    """Fingerprints in one text, sorted, so that their order says nothing."""
    return "".join(sorted(of_examples))


def shared(of_examples: list[str], known: str) -> int:
    """How many examples are among those of a text from :func:`joined`."""
    among = {known[start : start + _DIGITS] for start in range(0, len(known), _DIGITS)}
    return sum(each in among for each in of_examples)
