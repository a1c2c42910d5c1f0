"""N, the number of distinct training examples."""

import pytest
import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from bnn_lightning.training.facts import distinct_examples

DATA = TensorDataset(torch.arange(120))


class Few(Sampler):
    def __iter__(self):
        return iter(range(7))

    def __len__(self):
        return 7


@pytest.mark.parametrize(
    ("dataset", "sampler", "count"),
    [
        (DATA, None, 120),
        (DATA, RandomSampler(DATA, replacement=True, num_samples=1200), 120),
        (DATA, RandomSampler(DATA, num_samples=40), 120),  # another 40 in each epoch
        (DATA, WeightedRandomSampler(torch.ones(120), 1200), 120),
        (DATA, WeightedRandomSampler([1.0] * 20 + [0.0] * 100, 1200), 20),
        (DATA, SubsetRandomSampler([1, 5, 5, 9]), 3),
        (DATA, DistributedSampler(DATA, num_replicas=2, rank=0), 120),
        (DATA, Few(), 7),
        (DATA, DistributedSamplerWrapper(Few(), num_replicas=2, rank=0), 7),
        (DATA, DistributedSamplerWrapper(SubsetRandomSampler([1, 5, 5, 9]), num_replicas=2, rank=1), 3),
        (Subset(DATA, [3, 3, 4]), None, 2),
        (ConcatDataset([DATA] * 10), None, 120),
        (ConcatDataset([DATA, TensorDataset(torch.arange(5))]), None, 125),
    ],
)
def test_n_counts_examples_and_not_draws(dataset, sampler, count):
    assert distinct_examples(DataLoader(dataset, 8, sampler=sampler)) == count
