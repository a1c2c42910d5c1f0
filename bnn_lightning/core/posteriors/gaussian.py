"""Gaussian, the posterior with an independent normal distribution for each weight."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.kernels.gaussian_kl import summed_gaussian_kl
from bnn_lightning.core.kernels.noise import standard_normal_like
from bnn_lightning.core.kernels.softplus import log_softplus, softplus, squared_softplus
from bnn_lightning.core.posteriors.base import shape_text
from bnn_lightning.core.posteriors.with_prior import WithPrior
from bnn_lightning.core.priors import Prior


class Gaussian(WithPrior):
    """q(w) = N(mu, sigma^2) for each element independently, with sigma = softplus(rho).

    Blundell et al. 2015 (arXiv:1505.05424), section 3.2. ``mu`` and ``rho`` are parameters.

    Args:
        mu: initial means.
        rho: initial rho, of the same shape; softplus(-3) = 0.0486, softplus(-5) = 0.00672.
        prior: the prior of this tensor, a dataclass.
    """

    def __init__(self, mu: Tensor, rho: Tensor, prior: Prior):
        super().__init__(mu, prior)
        self.rho = nn.Parameter(rho)

    @property
    def width_parameters(self) -> tuple[str, ...]:
        return ("rho",)

    @property
    def sigma(self) -> Tensor:
        """The standard deviation of each element."""
        return softplus(self.rho)

    @property
    def variance(self) -> Tensor:
        return squared_softplus(self.rho.to(at_least_float32(self.rho)))  # half precision rounds variances to 0

    def sample(self) -> Tensor:
        return torch.addcmul(self.mu, self.sigma, standard_normal_like(self.mu))

    def log_alpha(self) -> Tensor:
        dtype = at_least_float32(self.mu)
        return 2 * (log_softplus(self.rho.to(dtype)) - self.mu.to(dtype).abs().log())

    def kl(self) -> Tensor:
        return self.kl_of_all([self])

    @staticmethod
    def kl_of_all(gaussians: Sequence["Gaussian"]) -> Tensor:
        """The sum of the KLs of ``gaussians`` in nats: a scalar. Those with a normal prior are computed in one pass."""
        terms: list[Tensor] = []
        groups: dict[tuple[torch.dtype, torch.device], list[Gaussian]] = {}
        for posterior in gaussians:
            dtype = at_least_float32(posterior.mu)
            if posterior._has_normal_prior:
                groups.setdefault((dtype, posterior.mu.device), []).append(posterior)
            else:
                rho = posterior.rho.to(dtype)
                terms.append(posterior.prior.kl(posterior.mu.to(dtype), softplus(rho), log_softplus(rho)))
        for (dtype, _), group in groups.items():
            group.sort(key=lambda posterior: posterior.mu.numel())
            names = ("mu", "rho", "prior_mu", "prior_sigma")
            tensors = [[getattr(posterior, name).to(dtype) for name in names] for posterior in group]
            terms.append(summed_gaussian_kl(tensors))
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0]

    def extra_repr(self) -> str:
        return f"{shape_text(self.mu)}, {self._prior_text()}"
