"""Fingerprints of examples: equal for equal ones, and beside a sum of Python's own integers."""

import numpy as np
import pytest
import torch

from bnn_lightning.data import fingerprints as module
from bnn_lightning.data.fingerprints import fingerprints, joined, shared


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_fingerprint_is_the_sum_of_its_numbers_and_random_factors(dtype, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 50)  # two examples
    inputs = (255 * torch.rand(5, 1, 4, 6, generator=torch.Generator().manual_seed(1))).to(dtype)
    factors = np.random.default_rng(0).integers(0, 2**64, 24, dtype=np.uint64).tolist()
    numbers = inputs.numpy().view(np.uint8 if dtype == torch.uint8 else np.int32).reshape(5, 24).tolist()
    sums = [sum(factor * number for factor, number in zip(factors, row, strict=True)) % 2**64 for row in numbers]
    assert fingerprints(inputs) == [f"{number:016x}" for number in sums]
    assert fingerprints(inputs[:0]) == []


def test_one_pixel_makes_another_example():
    images = torch.zeros(785, 1, 28, 28, dtype=torch.uint8)
    images.view(785, 784)[:784].fill_diagonal_(1)
    assert len(set(fingerprints(images))) == 785


def test_examples_that_are_known_are_counted():
    first, second = torch.rand(2, 10, 3, generator=torch.Generator().manual_seed(0)).unbind()
    known = joined(fingerprints(first))
    assert shared(fingerprints(torch.cat([second, first[:4], first[:1]])), known) == 5
    assert shared(fingerprints(second), known) == shared([], known) == shared(fingerprints(first), "") == 0
