"""The confusion matrix, what it says of each class, and whether a model is better than always the same answer.

A confusion matrix is ``(classes, classes)``: how many images of the class of its row were predicted as the class of its
column. Numbers of a class without images, or that nothing was predicted as, are nan.
"""

from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from bnn_lightning.wording import listed

_Z = 1.96
"""Standard errors on either side of a mean for 95 % of a normal distribution."""


def names_of_classes(known: Sequence[str], count: int) -> list[str]:
    """A name for each of ``count`` classes; a class without a known name is named by its number."""
    return [*known[:count], *map(str, range(len(known), count))]


def distinct_names(names: Sequence[str]) -> list[str]:
    """The names, with the number of its class behind each that several classes have."""
    counts = Counter(names)
    return [f"{name} ({label})" if counts[name] > 1 else name for label, name in enumerate(names)]


def confusion_matrix(log_probs: Tensor, labels: Tensor) -> Tensor:
    """The confusion matrix of log-probabilities ``(images, classes)`` and labels ``(images,)``: int64."""
    count = log_probs.shape[-1]
    pairs = labels * count + log_probs.argmax(-1)
    return pairs.bincount(minlength=count**2).view(count, count)


def recalls(confusion: Tensor) -> Tensor:
    """The accuracy on the images of each class: ``(classes,)``."""
    return confusion.diagonal().double() / confusion.sum(1)


def precisions(confusion: Tensor) -> Tensor:
    """How often a prediction of each class is right: ``(classes,)``."""
    return confusion.diagonal().double() / confusion.sum(0)


def f1_scores(confusion: Tensor) -> Tensor:
    """The harmonic mean of recall and precision of each class: ``(classes,)``; 0 where none was recognised."""
    return 2 * confusion.diagonal().double() / (confusion.sum(0) + confusion.sum(1))


def balanced_accuracy(confusion: Tensor) -> Tensor:
    """The mean accuracy over the classes that have images: a scalar (Brodersen et al. 2010)."""
    return recalls(confusion).nanmean()


def macro_f1(confusion: Tensor) -> Tensor:
    """The mean F1 score over the classes that have images or predictions: a scalar."""
    return f1_scores(confusion).nanmean()


def wilson_intervals(correct: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper ends of the 95 % interval of each accuracy ``correct / images`` (Wilson 1927), in their shape."""
    share = correct.double() / images
    centre = share + _Z**2 / (2 * images)
    margin = _Z * (share * (1 - share) / images + (_Z / (2 * images)) ** 2).sqrt()
    scale = 1 + _Z**2 / images
    return ((centre - margin) / scale).clamp_min(0), ((centre + margin) / scale).clamp_max(1)


def majority_caveats(confusion: Tensor, names: Sequence[str]) -> list[str]:
    """What to say of a model that is no better than one that always predicts the most frequent class.

    Its accuracy has to exceed the share of that class by 1.96 standard errors, those of the difference of the two on
    the same images (McNemar 1947); its balanced accuracy has to exceed that of any constant prediction, one over the
    number of classes that have images, by 1.96 of its own.

    Args:
        confusion: of the test images.
        names: of the classes.
    """
    images = confusion.sum(1)
    total, majority = int(images.sum()), int(images.argmax())
    right = int(confusion.diagonal().sum())
    kept = int(confusion[majority, majority])  # right in both ways of predicting
    gains, losses = right - kept, int(images[majority]) - kept
    caveats = []
    if gains - losses <= _Z * (gains + losses) ** 0.5:
        share = 100 * int(images[majority]) / total
        caveats.append(f"not shown to be more accurate than always {names[majority]} ({share:.1f} % of the images)")
    recall, counts = recalls(confusion)[images > 0], images[images > 0]
    error = (recall * (1 - recall) / counts).sum().sqrt() / len(counts)
    if recall.mean() <= 1 / len(counts) + _Z * error:
        caveats.append(f"balanced accuracy not shown to be better than guessing ({100 / len(counts):.1f} %)")
    return caveats


def missing_caveats(confusion: Tensor, names: Sequence[str]) -> list[str]:
    """What to say of classes that have no image in the confusion matrix, of which nothing is known."""
    missing = [name for name, images in zip(names, confusion.sum(1).tolist(), strict=True) if not images]
    if not missing:
        return []
    return [f"no images of {len(missing)} of {len(names)} classes ({listed(missing, between='; ')})"]
