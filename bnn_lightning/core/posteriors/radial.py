"""Radial, the posterior whose draws lie at a distance from the mean that does not grow with the number of weights."""

import math

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.kernels.noise import standard_normal_like
from bnn_lightning.core.kernels.softplus import log_softplus, softplus, squared_softplus
from bnn_lightning.core.posteriors.base import shape_text
from bnn_lightning.core.posteriors.with_prior import WithPrior
from bnn_lightning.core.priors import Prior


class Radial(WithPrior):
    """w = mu + sigma * r * eps / |eps| with eps ~ N(0, I) over the tensor, one r ~ N(0, 1), and sigma = softplus(rho).

    Farquhar et al. 2020 (arXiv:1907.00865), section 3. (w - mu) / sigma has a uniform direction and a length |r| of
    about 1, where independent noise has the square root of n, the number of elements. Elements are uncorrelated but not
    independent: LRT refuses them. Their law does not change when signs are flipped: Flipout takes them.

    The standard deviation of an element is sigma / sqrt(n), since the squares of eps / |eps| sum to 1: the same
    rho_init, or moped_delta, is narrower here than under Gaussian, and narrower for large tensors than for small ones.

    Args:
        mu: initial means.
        rho: initial rho, of the same shape.
        prior: the prior of this tensor, a dataclass.
    """

    is_factorised = False

    def __init__(self, mu: Tensor, rho: Tensor, prior: Prior):
        super().__init__(mu, prior)
        self.rho = nn.Parameter(rho)

    @property
    def width_parameters(self) -> tuple[str, ...]:
        return ("rho",)

    @property
    def variance(self) -> Tensor:
        # Half precision rounds variances to 0.
        return squared_softplus(self.rho.to(at_least_float32(self.rho))) / self.mu.numel()

    def sample(self) -> Tensor:
        eps = standard_normal_like(self.mu)
        # The norm in float32: the squares of a million numbers sum to more than half precision can count.
        norm = torch.linalg.vector_norm(eps, dtype=at_least_float32(eps))
        length = standard_normal_like(self.mu.new_empty(())) / norm
        return torch.addcmul(self.mu, softplus(self.rho), eps * length.to(eps.dtype))

    def log_alpha(self) -> Tensor:
        return 2 * (self._log_std() - self.mu.to(at_least_float32(self.mu)).abs().log())

    def kl(self) -> Tensor:
        """KL(posterior || prior) in nats: exact if the prior needs only means and variances, else from one draw."""
        dtype, n = at_least_float32(self.mu), self.mu.numel()
        if not self.prior.needs_only_moments:
            entropy = log_softplus(self.rho.to(dtype)).sum() + unit_radial_entropy(n)
            return -(entropy + self.prior.log_prob(self.sample().to(dtype)).sum())
        # That of the Gaussian with the same moments, and the difference of the two entropies, in which sigma cancels.
        log_std = self._log_std()
        kl_of_gaussian = self.prior.kl(self.mu.to(dtype), log_std.exp(), log_std)
        return kl_of_gaussian + 0.5 * n * math.log(2 * math.pi * math.e / n) - unit_radial_entropy(n)

    def _log_std(self) -> Tensor:
        """The logarithm of the standard deviation of each element."""
        return log_softplus(self.rho.to(at_least_float32(self.mu))) - 0.5 * math.log(self.mu.numel())

    def extra_repr(self) -> str:
        return f"{shape_text(self.mu)}, {self._prior_text()}"


def unit_radial_entropy(n: int) -> float:
    """The entropy, in nats, of v = r * eps / |eps| in ``n`` dimensions: that of :class:`Radial` at sigma 1.

    The length |v| = |r| has the density 2 phi(|v|), phi that of N(0, 1), and the direction is uniform on the sphere,
    whose surface at radius 1 is S = 2 pi^(n/2) / Gamma(n/2). So p(v) = 2 phi(|v|) / (S |v|^(n-1)), and
    -E log p(v) = -E log(2 phi(|v|)) + log S + (n - 1) E log|v|, with E log|r| = -(gamma + log 2) / 2 and gamma Euler's
    constant. For n = 1 it is the entropy of N(0, 1).
    """
    entropy_of_length = 0.5 * math.log(math.pi / 2) + 0.5
    log_surface = math.log(2) + 0.5 * n * math.log(math.pi) - math.lgamma(0.5 * n)
    return entropy_of_length + log_surface - (n - 1) * 0.5 * (_EULER_GAMMA + math.log(2))


_EULER_GAMMA = 0.5772156649015329
