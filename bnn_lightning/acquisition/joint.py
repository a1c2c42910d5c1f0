"""BatchBALD: a batch of images whose labels, taken together, say most about the weights."""

import math

import torch
from torch import Tensor

from bnn_lightning.acquisition.chunks import ELEMENTS, check_logits
from bnn_lightning.acquisition.configurations import Configurations
from bnn_lightning.acquisition.single import bald

CONFIGURATIONS = 10_000
_ROUNDING = 1e-4  # nats; float32 is off by less
_LOOKED_OVER = 1_000  # drawn configurations by which an image is looked over
_STANDARD_ERRORS = 5


def batchbald(
    predictive: Tensor, count: int, seed: int = 0, configurations: int = CONFIGURATIONS
) -> tuple[Tensor, Tensor]:
    """Chooses images greedily by the mutual information of their joint labels and the weights.

    Kirsch et al. 2019 (arXiv:1906.08158, eq. 6 and algorithm 1). With y the labels of the images chosen so far, the
    next one is that of the largest gain

        I(y, y_i; w) - I(y; w) = sum_c p(y = c) I(y_i; t | y = c)
                               = sum_c p(y = c) [H(sum_t p(t | c) p_t(y_i)) - sum_t p(t | c) H(p_t(y_i))],

    where p(t | c) is proportional to prod_j p_t(c_j). The sum runs over all configurations c while there are at most
    ``configurations`` of them that matter: what is left out in a step could add 1e-7 nats to all later gains together.
    Beyond that, it is the mean over ``configurations`` of them, c ~ p(y), the same number from each sample t. A term
    lies between 0 and log(classes), so that the standard error of a gain is at most
    log(classes) / (2 sqrt(configurations)): 0.012 nats for ten classes and the default.

    Gains never grow as the batch does (submodularity), and are never above the BALD of the image, so that most images
    are ruled out by what is known of them. Memory does not grow with the pool, beyond its scores.

    Args:
        predictive: logits ``(samples, pool, classes)``, by the same weight draws for all images.
        count: images to choose; of a smaller pool all are chosen.
        seed: of the configurations, and of the order among images of equal gain.
        configurations: the largest number of label configurations; rounded up to a multiple of the samples where they
            are drawn.

    Returns:
        indices ``(count,)`` in the order of the choice, and I(labels so far; w) in nats, ``(count,)``, float64; it is
        at most the log of the number of samples.

    Raises:
        ValueError: when the logits have another shape or are not finite, or a number is out of range.
    """
    check_logits(predictive, "predictive")
    if count < 0:
        raise ValueError(f"count must be 0 or more, got {count}.")
    if configurations < 1:
        raise ValueError(f"configurations must be 1 or more, got {configurations}.")
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(predictive.shape[1], generator=generator)  # the order among equals
    pool = _Pool(predictive, shuffled)
    labels = Configurations(len(predictive), configurations, generator)
    places: list[int] = []
    gains: list[float] = []
    for _ in range(min(count, len(shuffled))):
        place, gain = pool.best(labels)
        pool.bounds[place] = -math.inf
        places.append(place)
        gains.append(gain)
        labels.add(pool.probabilities(torch.tensor([place]))[:, 0])
    joint = torch.tensor(gains, dtype=torch.float64).cumsum(0).clamp_max(math.log(len(predictive)))
    return shuffled[torch.tensor(places, dtype=torch.int64)], joint


class _Pool:
    """The images of a pool, by their places in a given order, and what is known of their gains.

    A step looks over the images in float32: by the first 1,000 of configurations that were drawn, where the mean
    difference from one image, whose gain is computed in full, is known within five standard errors; then by all. What
    may be the best after that is computed in float64.
    """

    def __init__(self, predictive: Tensor, order: Tensor):
        self._predictive, self._order = predictive, order
        self.bounds = bald(predictive)[order]
        """At least the gain of each image: its BALD, or an exact gain of it in an earlier step; -inf once chosen."""

    def probabilities(self, places: Tensor) -> Tensor:
        """``(samples, places, classes)``, float64."""
        return self._predictive[:, self._order[places]].double().softmax(-1)

    def best(self, labels: Configurations) -> tuple[int, float]:
        """The place of the image with the largest gain, and the gain."""
        uppers = self.bounds + _ROUNDING
        samples = len(self._predictive)
        first = max(1, _LOOKED_OVER // samples) * samples
        if not labels.exact and len(labels.weights) > first:
            uppers = self._looked_over(labels, uppers, first)
        uppers = self._looked_over(labels, uppers, None)
        if labels.exact:
            self.bounds = torch.minimum(self.bounds, uppers)
        best, place = -1.0, -1
        for block in self._blocks(uppers, len(labels.weights)):
            block = block[uppers[block] > best]
            if len(block) == 0:
                break
            gains = self._gains(labels, block)
            if gains.max() > best:
                best, place = gains.max().item(), int(block[gains.argmax()])
        assert place >= 0  # the bounds of all that is left rule one another out only where they are wrong
        return place, best

    def _gains(self, labels: Configurations, places: Tensor) -> Tensor:
        return labels.weights @ labels.information(self.probabilities(places))

    def _blocks(self, uppers: Tensor, configurations: int) -> tuple[Tensor, ...]:
        """The places that may be the best, the most promising first, as many at once as memory allows."""
        order = uppers.argsort(descending=True, stable=True)[: int((uppers > -math.inf).sum())]
        return order.split(max(1, ELEMENTS // (configurations * self._predictive.shape[2])))

    def _looked_over(self, labels: Configurations, uppers: Tensor, first: int | None) -> Tensor:
        """For each place a number that its gain does not exceed; -inf where it cannot be the best.

        Args:
            labels: of the images that were chosen.
            uppers: such numbers that are known already.
            first: of how many configurations; None of all.
        """
        # Differences from an image whose gain is known vary less than gains do.
        leader = uppers.argmax()[None]
        leading, known = labels.information(self.probabilities(leader), first), self._gains(labels, leader)
        uppers, lowest = uppers.clone(), -1.0
        for block in self._blocks(uppers, len(labels.given[:first])):
            block = block[uppers[block] >= lowest]
            if len(block) == 0:
                break
            differences = labels.information(self.probabilities(block).float(), first) - leading.float()
            slack = torch.full((len(block),), _ROUNDING, dtype=torch.float64)
            if first is None:
                gains = known + (labels.weights.float() @ differences).double()
            else:
                spread, mean = torch.std_mean(differences.double(), 0)
                share = labels.weights.sum()
                gains = known + share * mean
                slack += _STANDARD_ERRORS * share * spread / math.sqrt(len(differences))
            uppers[block] = torch.minimum(uppers[block], gains + slack)
            lowest = max(lowest, (gains - slack).max().item())
        if labels.exact:
            return uppers
        # A gain of configurations that were drawn may be above the bound of an exact one; the best bound stays.
        return torch.where(uppers >= uppers.max().clamp_max(lowest), uppers, -math.inf)
