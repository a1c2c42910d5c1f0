"""PathGaussian, the Gaussian that the path of weights in training has: SWAG's posterior of a tensor."""

import torch
from torch import Tensor

from bnn_lightning.core.kernels.noise import standard_normal_like
from bnn_lightning.core.posteriors.joint import Joint, JointPart


class PathGaussian(JointPart):
    """w = mu + sqrt(c/2) (sigma eps + D z / sqrt(r - 1)), with eps ~ N(0, I) and one z ~ N(0, I) for the joint.

    sigma^2 is the variance of the weights that were collected, and D the deviations of the last r of them, each from
    the mean of all that had been collected by then. Maddox et al. 2019 (arXiv:1902.02476), eq. 1 and algorithm 1; its
    c is 1. Until :meth:`form`, nothing is random, and ``mu`` is what is trained.

    Args:
        mu: initial weights.
        joint: of all tensors.
        rank: K, the largest r.
    """

    average: Tensor
    spread: Tensor
    deviations: Tensor
    collected: Tensor
    scale: Tensor

    def __init__(self, mu: Tensor, joint: Joint, rank: int):
        super().__init__(mu, joint)
        self.register_buffer("average", torch.zeros_like(mu))
        self.register_buffer("spread", torch.zeros_like(mu))  # the variance, updated by Welford's rule
        self.register_buffer("deviations", mu.new_zeros(rank, *mu.shape))
        self.register_buffer("collected", torch.zeros((), dtype=torch.int64, device=mu.device))
        self.register_buffer("scale", mu.new_zeros(()))

    @torch.no_grad()
    def collect(self) -> None:
        """Takes the current ``mu`` in; the oldest of K deviations makes room for the new one."""
        place = int(self.collected) % len(self.deviations)
        self.collected += 1
        change = self.mu - self.average
        self.average += change / self.collected
        self.deviations[place] = self.mu - self.average
        self.spread += (change * self.deviations[place] - self.spread) / self.collected

    @torch.no_grad()
    def restart(self) -> None:
        """Forgets what was collected."""
        for buffer in (self.average, self.spread, self.deviations, self.collected, self.scale):
            buffer.zero_()

    @torch.no_grad()
    def form(self, scale: float) -> None:
        """Makes the tensor random: around the mean of what was collected, with its covariance times ``scale``, c."""
        self.mu.copy_(self.average)
        self.scale.fill_(scale)

    def _degrees(self) -> Tensor:
        """R - 1, or 1 where that is 0 and so are all deviations."""
        return (self.collected.clamp_max(len(self.deviations)) - 1).clamp_min(1).to(self.mu.dtype)

    @property
    def variance(self) -> Tensor:
        return 0.5 * self.scale * (self.spread + self.deviations.square().sum(0) / self._degrees())

    def noise(self) -> Tensor:
        return standard_normal_like(self.mu.new_empty(len(self.deviations)))

    def given(self, noise: Tensor) -> Tensor:
        together = torch.tensordot(noise, self.deviations, 1) / self._degrees().sqrt()
        alone = self.spread.sqrt() * standard_normal_like(self.mu)
        return self.mu + (0.5 * self.scale).sqrt() * (alone + together)
