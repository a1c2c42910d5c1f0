"""EPIG against nested Monte Carlo, and what it is for: images that say nothing about the targets."""

import math

import pytest
import torch

from bnn_lightning import acquire, epig
from tests.acquisition.helpers import information, random_pool


def test_epig_is_the_mean_over_targets_of_the_information_between_two_labels():
    """I(y; y*) = I(y; t) + I(y*; t) - I(y, y*; t), because labels are independent given the sample."""
    pool, targets = random_pool(5, 4, 3, 0), random_pool(5, 6, 3, 1)
    both = torch.cat([pool, targets], 1)
    expected = [
        sum(information(both, [i]) + information(both, [4 + m]) - information(both, [i, 4 + m]) for m in range(6)) / 6
        for i in range(4)
    ]
    torch.testing.assert_close(epig(pool, targets), torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)


def test_epig_is_what_nested_monte_carlo_comes_to():
    draws, generator = 200_000, torch.Generator().manual_seed(0)
    pool, targets = random_pool(10, 1, 4, 2), random_pool(10, 3, 4, 3)
    probs, of_targets = pool.softmax(-1)[:, 0], targets.softmax(-1)
    target = torch.randint(3, (draws,), generator=generator)
    sample = torch.randint(10, (draws,), generator=generator)
    y = probs[sample].multinomial(1, generator=generator).flatten()
    y_target = of_targets[sample, target].multinomial(1, generator=generator).flatten()
    # The inner mean is over all samples, as the predictive's.
    joint = (probs[:, y] * of_targets[:, target, y_target]).mean(0)
    ratio = (joint / (probs.mean(0)[y] * of_targets.mean(0)[target, y_target])).log()
    error = ratio.std().item() / math.sqrt(draws)
    assert abs(epig(pool, targets).item() - ratio.mean().item()) < 5 * error
    assert error < 0.01 * epig(pool, targets).item() + 0.002


def test_what_says_nothing_about_the_targets_is_worth_nothing():
    """Image 0 tells samples apart by pairs; the target depends on the other half of what distinguishes them."""
    side, other = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    pool = 50 * torch.stack([torch.eye(2)[side], 0.06 * torch.eye(2)[other]], 1)
    targets = 50 * torch.eye(2)[other].unsqueeze(1)
    assert acquire(pool, 1, "bald").images.item() == 0
    acquired = acquire(pool, 1, "epig", targets=targets)
    assert acquired.images.item() == 1
    assert acquired.scores[0].item() == pytest.approx(0, abs=1e-9)
