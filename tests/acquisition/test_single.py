"""Scores of single images: hand-made predictives, the rules by their names, and what is refused."""

import math

import pytest
import torch

from bnn_lightning import acquire
from bnn_lightning.acquisition import RULES, bald, chunks, entropy, variation_ratio
from tests.acquisition.helpers import logits_of, random_pool

# Two samples: sure of the same, sure of different classes, both unsure, and one unsure.
POOL = logits_of([[[1, 0], [1, 0], [0.5, 0.5], [1, 0]], [[1, 0], [0, 1], [0.5, 0.5], [0.5, 0.5]]])
LOG2 = math.log(2)


def test_scores_of_a_hand_made_predictive():
    mixed = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    torch.testing.assert_close(
        bald(POOL), torch.tensor([0, LOG2, 0, mixed - LOG2 / 2], dtype=torch.float64), atol=1e-7, rtol=0
    )
    torch.testing.assert_close(
        entropy(POOL), torch.tensor([0, LOG2, LOG2, mixed], dtype=torch.float64), atol=1e-7, rtol=0
    )
    torch.testing.assert_close(
        variation_ratio(POOL), torch.tensor([0, 0.5, 0.5, 0.25], dtype=torch.float64), atol=1e-7, rtol=0
    )


def test_a_rule_takes_the_highest_scores():
    for by, order in (("bald", [1, 3]), ("batchbald", [1, 3]), ("variation_ratio", None), ("entropy", None)):
        index = acquire(POOL, 2, by).images
        assert index.tolist() == order if order else set(index.tolist()) == {1, 2}


def test_chunks_change_nothing(monkeypatch):
    pool = random_pool(5, 60, 3)
    whole = {by: acquire(pool, 7, by, targets=pool[:, :4] if by == "epig" else None) for by in RULES}
    monkeypatch.setattr(chunks, "ELEMENTS", 40)
    for by in RULES:
        parts = acquire(pool, 7, by, targets=pool[:, :4] if by == "epig" else None)
        assert parts.images.equal(whole[by].images), by
        torch.testing.assert_close(parts.scores, whole[by].scores)


@pytest.mark.parametrize("by", RULES)
def test_equal_scores_are_taken_in_a_random_order_that_the_seed_decides(by):
    pool = random_pool(4, 1, 3).expand(-1, 100, -1)
    targets = pool[:, :2] if by == "epig" else None
    first, again, other = (acquire(pool, 20, by, targets, seed=seed).images for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)
    assert len(set(first.tolist())) == 20
    assert first.tolist() != sorted(first.tolist())
    # 20 of 0..99 at random: their mean has a standard error of 28.9 sqrt(80 / 99 / 20) = 5.8.
    assert abs(first.double().mean() - 49.5) < 5 * 5.8


@pytest.mark.parametrize("by", RULES)
@pytest.mark.parametrize(("pool", "count", "chosen"), [(0, 5, 0), (3, 5, 3), (3, 0, 0), (1, 1, 1)])
def test_small_pools_and_no_images(by, pool, count, chosen):
    logits = random_pool(4, max(pool, 1), 3)
    acquired = acquire(logits[:, :pool], count, by, targets=logits[:, :1] if by == "epig" else None)
    assert (
        sorted(acquired.images.tolist()) == list(range(pool))[:chosen] if chosen == pool else len(acquired.images) == 0
    )
    assert acquired.images.dtype == torch.int64
    assert acquired.scores.shape == (pool,)
    assert (acquired.joint is not None) == (by == "batchbald")


def test_random_is_random():
    chosen = [acquire(random_pool(2, 10, 3), 1, "random", seed=seed).images.item() for seed in range(200)]
    counts = torch.tensor(chosen).bincount(minlength=10)
    assert ((counts - 20.0).square() / 20).sum() < 34  # chi-squared with nine degrees of freedom: 1 in 10,000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"predictive": torch.zeros(3, 4)}, r"^predictive must be logits of shape \(samples, pool, classes\)"),
        ({"predictive": torch.zeros(3, 4, 1)}, "^predictive must be logits of shape"),
        ({"predictive": torch.zeros(3, 4, 2, dtype=torch.int64)}, "^predictive must be logits.* got int64"),
        ({"predictive": torch.tensor([[[0, 1.0], [torch.nan, 0]]] * 2)}, "^predictive must be finite, .* for image 1"),
        ({"predictive": torch.tensor([[[0, torch.inf], [0, 0]]] * 2)}, "^predictive must be finite, .* for image 0"),
        ({"count": -1}, "^count must be 0 or more, got -1"),
        ({"by": "margin"}, "^by must be one of entropy, variation_ratio, .* got 'margin'"),
        ({"predictive": torch.zeros(1, 4, 2)}, "^predictive must have two samples or more for batchbald"),
        ({"by": "epig"}, "^targets must be given for epig and for no other rule, got epig"),
        ({"targets": torch.zeros(3, 4, 2)}, "^targets must be given for epig and for no other rule, got batchbald"),
        ({"by": "epig", "targets": torch.zeros(2, 4, 2)}, "^targets must have the 3 samples of predictive"),
        ({"by": "epig", "targets": torch.zeros(3, 0, 2)}, "^targets must be one image or more"),
        ({"configurations": 0}, "^configurations must be 1 or more, got 0"),
    ],
)
def test_what_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        acquire(**{"predictive": torch.zeros(3, 4, 2), "count": 1} | arguments)


def test_one_sample_is_enough_where_information_is_not_measured():
    assert len(acquire(random_pool(1, 5, 3), 2, "entropy").images) == 2
