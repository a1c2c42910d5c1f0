"""Independent Gaussian weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.kernels.gaussian_kl import GaussianKL
from bnn_lightning.core.kernels.noise import standard_normal_like
from bnn_lightning.core.kernels.softplus import log_softplus, softplus, squared_softplus
from bnn_lightning.core.posteriors.base import shape_text
from bnn_lightning.core.priors import Prior


class Gaussian(nn.Module):
    """q(w) = N(mu, sigma^2) for each element on its own, sigma = softplus(rho), with prior N(prior_mu, prior_sigma^2).

    Blundell et al. 2015 (arXiv:1505.05424), section 3.2. ``mu`` and ``rho`` are parameters, the prior is a buffer.

    Args:
        mu: initial means.
        rho: initial rho, of the same shape; sigma(-3) = 0.0486, sigma(-5) = 0.00672.
        prior_mu, prior_sigma: mean and standard deviation of the prior: one number, or a tensor that broadcasts.
        prior: another prior in its place.
    """

    prior_mu: Tensor
    prior_sigma: Tensor

    def __init__(
        self,
        mu: Tensor,
        rho: Tensor,
        prior_mu: float | Tensor = 0.0,
        prior_sigma: float | Tensor = 0.1,
        prior: Prior | None = None,
    ):
        super().__init__()
        self.mu = nn.Parameter(mu)
        self.rho = nn.Parameter(rho)
        self.prior = prior
        self.register_buffer("prior_mu", torch.as_tensor(prior_mu, dtype=mu.dtype, device=mu.device))
        self.register_buffer("prior_sigma", torch.as_tensor(prior_sigma, dtype=mu.dtype, device=mu.device))

    @property
    def sigma(self) -> Tensor:
        return softplus(self.rho)

    @property
    def mean(self) -> Tensor:
        return self.mu

    @property
    def variance(self) -> Tensor:
        return squared_softplus(self.rho)

    def sample(self) -> Tensor:
        return torch.addcmul(self.mu, self.sigma, standard_normal_like(self.mu))

    def log_alpha(self) -> Tensor:
        dtype = at_least_float32(self.mu)
        return 2 * (log_softplus(self.rho.to(dtype)) - self.mu.to(dtype).abs().log())

    def kl(self) -> Tensor:
        return self.kl_of_all([self])

    @staticmethod
    def kl_of_all(gaussians: Sequence["Gaussian"]) -> Tensor:
        """The sum of their KLs, in one pass over those whose prior is the normal one."""
        terms = [one.prior.kl(*one._moments()) for one in gaussians if one.prior is not None]
        groups: dict[tuple[torch.dtype, torch.device], list[Gaussian]] = {}
        for one in gaussians:
            if one.prior is None:
                groups.setdefault((at_least_float32(one.mu), one.mu.device), []).append(one)
        for (dtype, _), group in groups.items():
            group.sort(key=lambda one: one.mu.numel())
            names = ("mu", "rho", "prior_mu", "prior_sigma")
            terms.append(GaussianKL.apply(len(group), *(getattr(one, n).to(dtype) for n in names for one in group))[0])
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0]

    def _moments(self) -> tuple[Tensor, Tensor, Tensor]:
        dtype = at_least_float32(self.mu)
        rho = self.rho.to(dtype)
        return self.mu.to(dtype), softplus(rho), log_softplus(rho)

    def extra_repr(self) -> str:
        if self.prior is not None:
            return f"{shape_text(self.mu)}, {self.prior}"
        one = self.prior_sigma.numel() == 1
        prior = f"prior_sigma={self.prior_sigma.item():.4g}" if one else "a prior for each element"
        return f"{shape_text(self.mu)}, {prior}"
