"""The joint distribution of the labels of several images and of the samples, as configurations of these labels."""

import torch
from torch import Tensor

_ELEMENTS = 2**24  # numbers of all configurations of one more image that are in memory at once
_LEFT_OUT = 1e-7  # nats that all later labels together could say at the configurations that an image leaves out


class Configurations:
    """Joint labels c of the images so far, with p(c) and p(t | c) for each sample t.

    All configurations that matter while there are at most ``limit`` of them and memory is enough, else ``limit`` that
    were drawn from p(c), the same number from each sample. What later labels can say at c is at most H(t | c); where
    that is next to nothing, because one sample alone explains c, the configuration is left out.

    Args:
        samples: their number.
        limit: the largest number of configurations.
        generator: draws them, once there are more.
    """

    def __init__(self, samples: int, limit: int, generator: torch.Generator):
        self._limit, self._generator = limit, generator
        self.exact = True
        """Whether they are all that matter."""
        self.weights = torch.ones(1, dtype=torch.float64)
        """p(c), ``(configurations,)``; of those that were drawn the share of each. Some are left out of the sum 1."""
        self.given = torch.full((1, samples), 1 / samples, dtype=torch.float64)
        """p(t | c), ``(configurations, samples)``."""
        self._images: list[Tensor] = []
        self._sample_of = torch.zeros(0, dtype=torch.int64)

    def add(self, probs: Tensor) -> None:
        """Adds an image with probabilities ``(samples, classes)``."""
        self._images.append(probs)
        if self.exact:
            self._add_exactly(probs)
        else:
            self._extend(probs)

    def information(self, probs: Tensor, first: int | None = None) -> Tensor:
        """I(y_i; t | y = c) in nats, ``(configurations, images)``, in the type of ``probs``.

        H(y_i | y = c) - sum_t p(t | c) H(p_t(y_i)). The mean of the second term over c is mean_t H(p_t(y_i)), but
        taken at each c it leaves a term that is never negative, and that varies far less between configurations.

        Args:
            probs: of each image, ``(samples, images, classes)``.
            first: only of so many configurations.
        """
        given = self.given[:first].to(probs.dtype)
        predicted = given @ probs.flatten(1)  # (configurations, images x classes)
        # Half the time of torch.special.entr; the least normal number stands for 0, whose term is 0 either way.
        logs = predicted.clamp_min(torch.finfo(probs.dtype).tiny).log_()
        negative_entropy = logs.mul_(predicted).view(-1, *probs.shape[1:]).sum(-1)
        return negative_entropy.neg_().sub_(given @ torch.special.entr(probs).sum(-1)).clamp_min_(0)

    def _add_exactly(self, probs: Tensor) -> None:
        if len(self.weights) * probs.numel() > _ELEMENTS:
            self._begin_drawing(len(probs))
            return
        joint = (self.weights[:, None] * self.given)[:, None, :] * probs.T  # (configurations, classes, samples)
        weights = joint.sum(-1).flatten()
        given = joint.flatten(0, 1) / weights[:, None].clamp_min(torch.finfo(torch.float64).tiny)
        kept = _telling(weights, given)
        if len(kept) > self._limit:
            self._begin_drawing(len(probs))
        else:
            self.weights, self.given = weights[kept], given[kept]

    def _begin_drawing(self, samples: int) -> None:
        self.exact = False
        rounds = -(-self._limit // samples)
        self._sample_of = torch.arange(samples).repeat(rounds)  # so that the first ones too are of all samples alike
        self.weights = torch.full((rounds * samples,), 1 / (rounds * samples), dtype=torch.float64)
        self.given = torch.full((rounds * samples, samples), 1 / samples, dtype=torch.float64)
        for probs in self._images:
            self._extend(probs)

    def _extend(self, probs: Tensor) -> None:
        """Draws a label for each configuration by its own sample, under which its probability is above 0."""
        drawn = probs[self._sample_of].multinomial(1, generator=self._generator).flatten()
        given = self.given * probs.T[drawn]
        given = given / given.sum(-1, keepdim=True)
        kept = _telling(self.weights, given)
        self.weights, self.given, self._sample_of = self.weights[kept], given[kept], self._sample_of[kept]


def _telling(weights: Tensor, given: Tensor) -> Tensor:
    """The configurations at which later labels can still say something, in their order; one at least."""
    ascending, order = (weights * torch.special.entr(given).sum(-1)).sort()
    left_out = min(int((ascending.cumsum(0) <= _LEFT_OUT).sum()), len(order) - 1)
    return order[left_out:].sort().values
