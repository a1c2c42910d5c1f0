"""The pool of a simulated labelling loop: images with labels that are not looked at until they are bought."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bnn_lightning.data import Images

FOREIGN = -1
"""The label of a picture of no class, which costs as much as any other."""


@dataclass(frozen=True)
class PoolSettings:
    """What a pool is made of.

    Args:
        size: images of the training set that are in it, chosen at random; None takes all.
        copies: how often each of them is in it.
        rare: share of the images that is kept of each class of the second half; 1 keeps the classes as they are.
        foreign: pictures of no class for each image of a class.
        per_class: images of each class whose labels are known at the start; they are part of the budget.
    """

    size: int | None = None
    copies: int = 1
    rare: float = 1.0
    foreign: float = 0.0
    per_class: int = 2

    def __post_init__(self) -> None:
        for name, lowest in (("size", 1), ("copies", 1), ("per_class", 1)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ValueError(f"{name} must be {lowest} or more, got {value}.")
        if not 0 < self.rare <= 1:
            raise ValueError(f"rare must be a share above 0 and up to 1, got {self.rare}.")
        if not self.foreign >= 0:
            raise ValueError(f"foreign must be 0 or more, got {self.foreign}.")


@dataclass(frozen=True)
class Pool:
    """Images, of which some are labelled from the start.

    Args:
        images: all of them; labels are :data:`FOREIGN` where there is no class.
        start: indices of those that are labelled from the start.
    """

    images: Images
    start: Tensor


def make_pool(train: Images, foreign: Images | None, num_classes: int, settings: PoolSettings, seed: int) -> Pool:
    """A pool from a training set; which images are in it, and which are labelled at the start, depends on ``seed``.

    Args:
        train: images with their classes.
        foreign: pictures of no class, of the same size; None where the settings ask for none.
        num_classes: how many there are.
        settings: what it is made of.
        seed: of what is random.

    Raises:
        ValueError: when there are too few images for the settings.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train), generator=generator)
    labels = train.labels[order]
    if settings.rare < 1:
        is_rare = labels >= (num_classes + 1) // 2
        kept = torch.rand(len(labels), generator=generator) < settings.rare
        order, labels = order[~is_rare | kept], labels[~is_rare | kept]
    if settings.size is not None:
        if settings.size > len(order):
            raise ValueError(f"size must be at most the {len(order):,} training images, got {settings.size:,}.")
        order, labels = order[: settings.size], labels[: settings.size]
    start = []
    for label in range(num_classes):
        of_class = (labels == label).nonzero().flatten()[: settings.per_class]
        if len(of_class) < settings.per_class:
            raise ValueError(
                f"per_class must be at most the images of each class, got {settings.per_class} where class {label} has "
                f"{len(of_class)}."
            )
        start.append(of_class)
    chosen = train[order.repeat(settings.copies)]
    pixels, all_labels = [chosen.pixels], [chosen.labels]
    wanted = round(settings.foreign * len(chosen))
    if wanted:
        if foreign is None or len(foreign) < wanted:
            have = 0 if foreign is None else len(foreign)
            raise ValueError(f"foreign must leave enough pictures of --data.ood, {wanted:,} of them, got {have:,}.")
        others = foreign[torch.randperm(len(foreign), generator=generator)[:wanted]]
        pixels.append(others.pixels)
        all_labels.append(torch.full((wanted,), FOREIGN))
    return Pool(Images(torch.cat(pixels), torch.cat(all_labels)), torch.cat(start))
