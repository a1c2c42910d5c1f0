"""RankOneNoise: independent noise, and one direction in which all weights of a tensor move together."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from bnn_lightning import Normal, Posterior


class RankOneNoise(Posterior):
    """q(w) = N(mu, diag(sigma^2) + v v^T) against a normal prior; w = mu + sigma eps + v z with one z for the tensor.

    Args:
        mu, rho: initial means and rho, sigma = softplus(rho).
        prior: Normal.
        scale: standard deviation that the initial v is drawn with.
    """

    is_factorised = False
    is_symmetric = False

    def __init__(self, mu: Tensor, rho: Tensor, prior: Normal, scale: float = 0.01):
        super().__init__()
        self.mu, self.rho = nn.Parameter(mu), nn.Parameter(rho)
        self.direction = nn.Parameter(scale * torch.randn_like(mu))
        self.prior = prior

    @property
    def width_parameters(self) -> tuple[str, ...]:
        return ("rho", "direction")

    @property
    def mean(self) -> Tensor:
        return self.mu

    @property
    def variance(self) -> Tensor:
        return softplus(self.rho).square() + self.direction.square()

    def sample(self) -> Tensor:
        sigma, z = softplus(self.rho), torch.randn((), device=self.mu.device)
        return self.mu + sigma * torch.randn_like(self.mu) + self.direction * z

    def kl(self) -> Tensor:
        sigma2 = softplus(self.rho).square()
        # The determinant lemma: |D + v v^T| = |D| (1 + v^T D^-1 v).
        log_det = sigma2.log().sum() + (self.direction.square() / sigma2).sum().log1p()
        s2 = self.prior.sigma**2
        squares = (self.variance + (self.mu - self.prior.mu).square()).sum() / s2
        count = self.mu.numel()
        return 0.5 * (squares - count + count * math.log(s2) - log_det)
