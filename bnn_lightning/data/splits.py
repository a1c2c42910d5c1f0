"""Splits of labelled images: stratified parts, classes too small for them, subsets, and weights of classes."""

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bnn_lightning.wording import listed


def stratified_split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Splits examples at random into two parts in which each class has the same share, to within one example.

    Examples whose labels are numbers are split at random alone.

    Args:
        labels: classes ``(n,)``, or numbers ``(n, targets)``.
        share: of the examples that go into the first part, from 0 to 1.
        seed: of the random choice.

    Returns:
        Two disjoint index tensors in rising order: ``round(share * n)`` examples, and the others.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled if labels.is_floating_point() else shuffled[labels[shuffled].argsort(stable=True)]
    count = round(share * len(labels))
    # Evenly spaced positions in a list that is sorted by class take the same share of every class.
    positions = ((torch.arange(count) + 0.5) * len(labels) / max(count, 1)).long()
    in_first_part = torch.zeros(len(labels), dtype=torch.bool)
    in_first_part[by_class[positions]] = True
    return in_first_part.nonzero().flatten(), (~in_first_part).nonzero().flatten()


def start_and_stop(subset: int | list[int] | None) -> tuple[int, int] | None:
    """The range of images that the setting ``train_subset`` asks for; None for all of them.

    Raises:
        ValueError: when it is none.
    """
    if subset is None:
        return None
    start, stop = (0, subset) if isinstance(subset, int) else (subset if len(subset) == 2 else (0, 0))
    if not 0 <= start < stop:
        raise ValueError(f"train_subset must be a number of images or [start, stop] with start < stop, got {subset}.")
    return start, stop


def subset_index(labels: Tensor, start: int, stop: int, seed: int) -> Tensor | slice:
    """Which images a range of them is: in file order, unless the file has one class after the other.

    There a range would be of few classes. It is one of an order that is drawn by ``seed`` and mixes the classes: the
    first image of each, then every class in proportion to its size.

    Args:
        labels: of all images: classes ``(n,)``, or numbers ``(n, targets)``.
        start, stop: the range.
        seed: of the order.

    Returns:
        A slice, or indices in rising order.
    """
    if labels.is_floating_point() or not 0 < int(labels.diff().count_nonzero()) < len(labels.unique()):
        return slice(start, stop)
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    counts = labels.bincount()
    sizes = counts[labels[by_class]]
    numbers = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[by_class]]  # within the class, from 0
    mixed = by_class[(numbers.double() / sizes).argsort(stable=True)]
    return mixed[start:stop].sort().values


def warn_of_small_classes(parts: Mapping[str, Tensor], names: Sequence[str], within: str = "") -> None:
    """Warns where a class is not in all parts of the images, and names it with its counts.

    One that is in none of them may have a single image, which is in the test set.

    Args:
        parts: labels ``(images,)`` of each part by its name; a part without any image lacks no class.
        names: of the classes.
        within: what the images were taken by, where they are not all.
    """
    counts = {part: labels.bincount(minlength=len(names)).tolist() for part, labels in parts.items() if len(labels)}
    small = []
    for name, *of_class in zip(names, *counts.values(), strict=False):
        if not all(of_class):
            numbers = ", ".join(f"{part} {count}" for part, count in zip(counts, of_class, strict=True))
            small.append(f"{name} ({numbers})")
    if small:
        named = listed(small, most=10, between="; ")
        warnings.warn(
            f"{len(small)} of {len(names)} classes are too small{within} to be in every part of the hold-out: {named}.",
            stacklevel=2,
        )


def balanced_class_weights(labels: Tensor, num_classes: int) -> list[float]:
    """N / (K n_k) for a class with n_k of N images, K classes having any: their mean over the images is 1.

    A class without images has weight 1, which nothing is multiplied by.

    Args:
        labels: ``(images,)``.
        num_classes: how many weights to return, at least.
    """
    counts = labels.bincount(minlength=num_classes)
    weights = len(labels) / ((counts > 0).sum() * counts.double())
    return torch.where(counts > 0, weights, 1.0).tolist()
