"""Noise: Philox against its authors' numbers, and against N(0, 1)."""

import math

import pytest
import torch

from bnn_lightning.core.kernels.memory import is_channels_last
from bnn_lightning.core.kernels.noise import draw_key, philox, philox_normal, philox_words, standard_normal_like

COUNT = 1_000_000


# The known answers for Philox-4x32-10 that its authors publish with Random123: counter, key, result.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_published_words(counter, key, expected):
    def words(text):
        return tuple(torch.tensor([int(word, 16)]) for word in text.split())

    assert philox_words(words(counter), words(key)) == words(expected)


def test_philox_counts_in_the_low_words():
    counter = torch.tensor([5, (7 << 32) + 5])
    numbers = torch.stack(philox(counter, torch.tensor([1, 2])), 1)
    for row, high in zip(numbers, (0, 7), strict=True):
        words = tuple(torch.tensor(word) for word in (5, high, 0, 0))
        assert row.tolist() == [word.item() for word in philox_words(words, (torch.tensor(1), torch.tensor(2)))]


def normal(seed):
    torch.manual_seed(seed)
    return philox_normal(COUNT // 4, draw_key(torch.zeros(())))


def test_moments_up_to_the_sixth_are_those_of_a_normal_law():
    z = normal(0).double()
    # The variance of the k-th power's mean is (E z^2k - (E z^k)^2) / n.
    for power, expected, second in ((1, 0, 1), (2, 1, 3), (3, 0, 15), (4, 3, 105), (6, 15, 10395)):
        error = math.sqrt((second - expected**2) / COUNT)
        assert abs(z.pow(power).mean().item() - expected) < 5 * error


def test_the_distribution_function_is_that_of_a_normal_law():
    # Kolmogorov and Smirnov: sqrt(n) D exceeds 2.23 with probability 1e-4.
    z = normal(1).double().sort().values
    expected = torch.special.ndtr(z)
    steps = torch.arange(1, COUNT + 1, dtype=torch.float64) / COUNT
    distance = torch.maximum((steps - expected).abs().max(), (steps - 1 / COUNT - expected).abs().max())
    assert math.sqrt(COUNT) * distance < 2.23


@pytest.mark.slow
def test_tails_are_as_heavy_as_those_of_a_normal_law():
    # Beyond 5 sigma there are 5.7e-7 of all numbers, within five standard deviations of a Poisson count.
    key = torch.tensor([11, 12])
    z = torch.cat([philox_normal(COUNT, key + torch.tensor([0, shift])) for shift in range(10)])
    for bound in (3, 4, 5):
        expected = len(z) * math.erfc(bound / math.sqrt(2))
        for beyond in ((z > bound).sum(), (z < -bound).sum()):
            assert abs(beyond.item() - expected / 2) < 5 * math.sqrt(expected / 2)
    assert z.abs().max() < 6.8


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 7, 64, 1000, COUNT // 4, COUNT // 2])
def test_neither_numbers_nor_squares_are_correlated_across_lags(lag):
    z = normal(2).double()
    count = COUNT - lag
    for values, variance in ((z, 1), (z.square() - 1, 4)):
        assert abs((values[lag:] * values[:-lag]).mean().item()) < 5 * variance / math.sqrt(count)


@pytest.mark.parametrize("change", [(0, 1), (1, 0), (1 << 31, 0), (0, 1 << 16)])
def test_close_keys_give_unrelated_numbers(change):
    key = torch.tensor([3, 4])
    first, second = (philox_normal(COUNT // 4, close_key).double() for close_key in (key, key ^ torch.tensor(change)))
    assert abs((first * second).mean().item()) < 5 / math.sqrt(COUNT)
    assert abs(((first.square() - 1) * (second.square() - 1)).mean().item()) < 5 * 2 / math.sqrt(COUNT)


def test_keys_come_from_torchs_generator():
    torch.manual_seed(5)
    first, second = draw_key(torch.zeros(1)), draw_key(torch.zeros(1))
    torch.manual_seed(5)
    assert torch.equal(draw_key(torch.zeros(1)), first)
    assert not torch.equal(first, second)
    assert min(first.min(), second.min()) >= 0
    assert max(first.max(), second.max()) < 1 << 32


def test_noise_lies_in_memory_as_what_it_is_for():
    for x in (torch.zeros(2, 3, 4, 5), torch.zeros(2, 3), torch.zeros(())):
        assert standard_normal_like(x).stride() == x.stride()
    x = torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert is_channels_last(standard_normal_like(x))
