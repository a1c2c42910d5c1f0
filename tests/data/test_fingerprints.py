"""Fingerprints of examples: equal for equal ones, and for no others."""

import torch

from bnn_lightning.data.fingerprints import fingerprints, joined, shared


def test_a_fingerprint_is_that_of_the_bytes_wherever_an_example_lies():
    inputs = torch.rand(5, 1, 4, 6, generator=torch.Generator().manual_seed(1))
    first, *others = fingerprints(inputs)
    assert (len(first), len(set(others))) == (16, 4)
    assert fingerprints(inputs.flip(0)) == [*reversed(others), first]
    assert fingerprints(inputs.transpose(2, 3).contiguous().transpose(2, 3)) == [first, *others]  # strides say nothing
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
