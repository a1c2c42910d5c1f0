"""Balanced sampling, weights of classes, and classes too small for the hold-out."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from bnn_lightning.data import ImageData, Images, MNIST5k
from bnn_lightning.data.loader import EpochSampler
from bnn_lightning.data.splits import balanced_class_weights

COUNTS = (150, 30, 15, 5)


class Pets(ImageData):
    """Grey squares, some classes with many and some with few."""

    class_names = ("cat", "dog", "owl", "ant")
    native_size = 4
    counts = COUNTS

    def load_train(self):
        labels = torch.arange(4).repeat_interleave(torch.tensor(self.counts))
        pixels = torch.randint(0, 256, (len(labels), 1, 4, 4), dtype=torch.uint8)
        return Images(pixels, labels)

    load_test = load_train


def balanced(seed=5, rank=0, world_size=1):
    labels = torch.arange(4).repeat_interleave(torch.tensor(COUNTS))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    return labels, EpochSampler(len(labels), True, seed, rank, world_size, labels)


def test_every_class_and_every_image_of_a_class_is_drawn_as_often():
    labels, sampler = balanced()
    draws = []
    for epoch in range(200):
        sampler.set_epoch(epoch)
        draws.append(sampler.order())
        assert len(draws[-1]) == len(sampler) == sum(COUNTS)
    draws = torch.cat(draws)
    assert chisquare(labels[draws].bincount().numpy()).pvalue > 1e-4
    images = draws.bincount(minlength=len(labels))
    for label in range(4):
        assert chisquare(images[labels == label].numpy()).pvalue > 1e-4


def test_a_class_without_images_is_never_drawn():
    labels = torch.tensor([0, 0, 0, 3])
    drawn = torch.cat([EpochSampler(4, True, seed, balanced_labels=labels).order() for seed in range(50)])
    assert set(drawn.tolist()) == {0, 1, 2, 3}


def test_the_order_is_a_function_of_seed_and_epoch_and_processes_share_it():
    _, sampler = balanced()
    whole = sampler.order()
    assert torch.equal(whole, balanced()[1].order())
    assert not torch.equal(whole, balanced(seed=6)[1].order())
    shares = [balanced(rank=rank, world_size=3)[1].order() for rank in range(3)]
    assert [len(share) for share in shares] == [66, 66, 66]
    assert torch.equal(torch.stack(shares, 1).flatten(), whole[:198])
    sampler.set_epoch(1)
    assert not torch.equal(whole, sampler.order())


def test_n_is_the_number_of_distinct_images():
    data = Pets(sampling="balanced", val_split=0)
    data.setup("fit")
    assert data.num_train == 200
    loader = data.train_dataloader()
    assert len(loader.sampler) == 200
    assert len(loader.sampler.order().unique()) < 150
    assert data.departures == ["balanced sampling"]
    assert data.loss_weights is None
    order = data.calibration_dataloader().sampler.order()
    assert torch.equal(order, torch.arange(len(order)))


def test_weights_are_n_over_k_n_k():
    data = Pets(class_weights="balanced", val_split=0)
    data.setup("fit")
    assert data.loss_weights == pytest.approx([200 / (4 * count) for count in COUNTS])
    assert np.mean(np.array(data.loss_weights)[data.train.labels]) == pytest.approx(1)
    assert data.departures == ["class weights"]
    assert sorted(data.train_dataloader().sampler.order().tolist()) == list(range(200))


def test_a_class_without_images_leaves_the_mean_weight_at_one():
    weights = balanced_class_weights(torch.tensor([0, 0, 0, 2]), 4)
    assert weights == pytest.approx([2 / 3, 1, 2, 1])


def test_a_class_too_small_for_the_hold_out_is_named_with_its_counts():
    data = Pets()
    data.counts = (150, 30, 3, 1)
    with pytest.warns(UserWarning, match="too small") as caught:
        data.setup("fit")
    parts = [part.labels.bincount(minlength=4).tolist() for part in (data.train, data.selection, data.calibration)]
    told = [
        f"{name} (train {counts[0]}, selection {counts[1]}, calibration {counts[2]})"
        for name, *counts in zip(data.class_names, *parts, strict=True)
        if 0 in counts
    ]
    assert len(told) == 2
    sentence = f"2 of 4 classes are too small to be in every part of the hold-out: {'; '.join(told)}."
    assert [str(warning.message) for warning in caught] == [sentence]
    data.counts = (150, 30, 30, 0)  # its only picture is in the test set
    data.train = None
    with pytest.warns(UserWarning, match=r"1 of 4 classes .*: \w+ \(train 0, selection 0, calibration 0\)"):
        data.setup("fit")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.setup("fit")  # said once
        Pets(val_split=0).setup("fit")  # no part that could lack a class
        MNIST5k(train_subset=500).setup("fit")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampling": "even"}, "sampling must be balanced or null, got even."),
        ({"class_weights": "even"}, "class_weights must be balanced or null, got even."),
        (
            {"class_weights": "balanced", "sampling": "balanced"},
            "sampling must be null with class_weights, got balanced: rare classes would count twice.",
        ),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match="must be") as error:
        Pets(**settings)
    assert str(error.value) == message
