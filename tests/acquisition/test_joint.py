"""BatchBALD against sums over all configurations, duplicates, and the error of configurations that are drawn."""

import math

import pytest
import torch

from bnn_lightning import batchbald
from bnn_lightning.acquisition import acquire, bald, joint
from bnn_lightning.acquisition.configurations import Configurations
from tests.acquisition.helpers import information, random_pool


@pytest.mark.parametrize("seed", range(4))
def test_four_images_of_three_classes_have_their_exact_joint_information(seed):
    pool = random_pool(6, 9, 3, seed)
    index, scores = batchbald(pool, 4)
    chosen = index.tolist()
    for count in range(1, 5):
        assert scores[count - 1].item() == pytest.approx(information(pool, chosen[:count]), abs=1e-6)
        # Greedy: no other image would have added more.
        others = [image for image in range(9) if image not in chosen[: count - 1]]
        best = max(information(pool, [*chosen[: count - 1], other]) for other in others)
        assert scores[count - 1].item() == pytest.approx(best, abs=1e-6)


def test_one_image_is_balds():
    pool = random_pool(8, 200, 5)
    index, scores = batchbald(pool, 1)
    assert index.item() == bald(pool).argmax()
    assert scores.item() == pytest.approx(bald(pool).max().item(), abs=1e-9)


def test_the_joint_score_grows_by_less_and_less_up_to_the_log_of_the_samples():
    pool = random_pool(7, 50, 3, spread=3)
    _, scores = batchbald(pool, 8, configurations=10**5)  # 3^8 = 6,561: all are there
    gains = scores.diff(prepend=torch.zeros(1))
    assert (gains >= 0).all()
    assert (gains.diff() <= 1e-9).all()
    assert scores[-1] <= math.log(7)


def test_both_copies_of_an_image_are_bald_but_not_batchbald():
    pool = random_pool(40, 30, 4, spread=1.5)
    twice = torch.cat([pool, pool], 1)
    by_bald, by_batchbald = (
        [image % 30 for image in acquire(twice, 6, by).images.tolist()] for by in ("bald", "batchbald")
    )
    assert len(set(by_bald)) == 3
    assert len(set(by_batchbald)) == 6


def test_drawn_configurations_are_within_their_standard_error():
    """Ten images: each gain is compared with that of all 3^9 configurations."""
    pool, drawn_of_gain = random_pool(30, 12, 3, spread=0.7), 2_000
    index, exact = batchbald(pool, 10, configurations=3**10)
    labels = Configurations(30, drawn_of_gain, torch.Generator().manual_seed(0))
    probs = pool.softmax(-1)[:, index]
    gains = exact.diff(prepend=torch.zeros(1))
    errors = []
    for image in range(10):
        terms = labels.information(probs[:, image : image + 1])[:, 0]
        gain = (labels.weights @ terms).item()
        if labels.exact:
            assert gain == pytest.approx(gains[image].item(), abs=1e-6)
        else:
            standard_error = terms.std().item() / math.sqrt(drawn_of_gain)
            assert standard_error <= math.log(3) / (2 * math.sqrt(drawn_of_gain))  # as the docstring has it
            errors.append((gain - gains[image].item()) / standard_error)
        labels.add(probs[:, image])
    assert len(errors) == 3  # 3^7 = 2,187 are more than 2,000, and the eighth image is the first that they are for
    assert max(map(abs, errors)) < 5
    assert max(map(abs, errors)) > 0.01  # they were drawn


@pytest.mark.parametrize(("samples", "spread"), [(25, 2.0), (25, 3.0), (9, 3.0)])
def test_labels_that_leave_nothing_to_tell_are_no_reason_to_choose_an_image_twice(samples, spread):
    """After some labels one sample alone explains each configuration: those that still tell anything run out."""
    pool = random_pool(samples, 100, 10, spread=spread)
    index, scores = batchbald(pool, 50)
    assert len(set(index.tolist())) == 50
    assert (scores.diff() >= 0).all()
    assert 0.97 * math.log(samples) < scores[-1] <= math.log(samples) + 1e-12
    index, _ = batchbald(pool, 5, configurations=1)
    assert len(set(index.tolist())) == 5


def test_ruling_images_out_changes_nothing(monkeypatch):
    pool = random_pool(20, 300, 4, seed=3, spread=1)
    monkeypatch.setattr(joint, "_LOOKED_OVER", 40)
    index, scores = batchbald(pool, 12, configurations=1_000)
    monkeypatch.setattr(joint._Pool, "_looked_over", lambda self, labels, uppers, first: uppers)
    monkeypatch.setattr(joint, "_ROUNDING", 10.0)
    slow_index, slow_scores = batchbald(pool, 12, configurations=1_000)
    assert index.equal(slow_index)
    torch.testing.assert_close(scores, slow_scores, atol=1e-9, rtol=0)


def test_samples_without_overlap_are_told_apart_at_once():
    """Each sample is sure of another class: one label says all, and nothing is left for the others."""
    logits = 200 * torch.eye(3).unsqueeze(1).expand(3, 5, 3)
    _, scores = batchbald(logits, 5)
    torch.testing.assert_close(scores, torch.full((5,), math.log(3), dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_best_is_found_where_gains_of_drawn_configurations_exceed_exact_bounds():
    for seed in range(30):
        pool = torch.randn(200, 8, 3, generator=torch.Generator().manual_seed(seed))
        index, _ = batchbald(pool, 8, seed, configurations=100)
        assert sorted(index.tolist()) == list(range(8))


def test_configurations_of_many_classes_are_drawn_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr("bnn_lightning.acquisition.configurations._ELEMENTS", 20 * 50 * 50)
    labels = Configurations(20, 10_000, torch.Generator().manual_seed(0))
    probs = random_pool(20, 3, 50).softmax(-1)
    for image in range(2):
        assert labels.exact
        labels.add(probs[:, image])
    assert len(labels.weights) <= 50 * 50
    labels.add(probs[:, 2])
    assert not labels.exact
