"""Random tensors: what a weight or a bias becomes under a method, and closed-form KL divergences between them.

Every posterior is an ``nn.Module`` with the same four members: ``mean``, ``variance``, ``sample()`` and ``kl()``.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Below this rho, softplus(rho) equals exp(rho) to float32 rounding, so log(softplus(rho)) is rho itself. Going through
# the logarithm would end at log(0) = -inf once softplus underflows (rho < -104 in float32).
_LOG_SIGMA_IS_RHO = -15.0


def gaussian_kl(
    mu: Tensor, sigma: Tensor, prior_mu: Tensor, prior_sigma: Tensor, log_sigma: Tensor | None = None
) -> Tensor:
    """KL(N(mu, sigma^2) || N(prior_mu, prior_sigma^2)), element by element, in nats.

    log(s / sigma) + (sigma^2 + (mu - m)^2) / (2 s^2) - 1/2 for a prior N(m, s^2). The posterior comes first: the other
    direction is mass-covering, explodes as sigma goes to 0 and is not the term of the ELBO.

    ``log_sigma`` may be given where it is known more exactly than the logarithm of ``sigma``.
    """
    if log_sigma is None:
        log_sigma = sigma.log()
    return (
        prior_sigma.log() - log_sigma + (sigma.square() + (mu - prior_mu).square()) / (2 * prior_sigma.square()) - 0.5
    )


class Posterior(Protocol):
    """A random tensor. ``mean``, ``variance`` and ``sample()`` have the shape of the tensor it replaces."""

    @property
    def mean(self) -> Tensor: ...

    @property
    def variance(self) -> Tensor: ...

    def sample(self) -> Tensor:
        """One draw, differentiable in the posterior's parameters."""
        ...

    def kl(self) -> Tensor:
        """KL(posterior || prior) summed over the tensor: a scalar in nats, computed from the current parameters."""
        ...


class Gaussian(nn.Module):
    """q(w) = N(mu, sigma^2) for each element on its own, sigma = softplus(rho), with prior N(prior_mu, prior_sigma^2).

    Blundell et al. 2015 (arXiv:1505.05424), section 3.2. ``mu`` and ``rho`` are parameters, the prior is a buffer.

    Args:
        mu: initial means.
        rho: initial rho, of the same shape; sigma(-3) = 0.0486, sigma(-5) = 0.00672.
        prior_mu, prior_sigma: mean and standard deviation of the prior: one number, or a tensor that broadcasts.
    """

    prior_mu: Tensor
    prior_sigma: Tensor

    def __init__(self, mu: Tensor, rho: Tensor, prior_mu: float | Tensor = 0.0, prior_sigma: float | Tensor = 0.1):
        super().__init__()
        self.mu = nn.Parameter(mu)
        self.rho = nn.Parameter(rho)
        self.register_buffer("prior_mu", torch.as_tensor(prior_mu, dtype=mu.dtype, device=mu.device))
        self.register_buffer("prior_sigma", torch.as_tensor(prior_sigma, dtype=mu.dtype, device=mu.device))

    @property
    def sigma(self) -> Tensor:
        return F.softplus(self.rho)

    @property
    def mean(self) -> Tensor:
        return self.mu

    @property
    def variance(self) -> Tensor:
        return self.sigma.square()

    def sample(self) -> Tensor:
        return torch.addcmul(self.mu, self.sigma, torch.randn_like(self.mu))

    def kl(self) -> Tensor:
        # Millions of terms are added up: never in less than float32, whatever the parameters are kept in.
        dtype = torch.promote_types(self.mu.dtype, torch.float32)
        mu, rho = self.mu.to(dtype), self.rho.to(dtype)
        prior_mu, prior_sigma = self.prior_mu.to(dtype), self.prior_sigma.to(dtype)
        sigma = F.softplus(rho)
        log_sigma = torch.where(rho < _LOG_SIGMA_IS_RHO, rho, sigma.clamp_min(torch.finfo(dtype).tiny).log())
        return gaussian_kl(mu, sigma, prior_mu, prior_sigma, log_sigma).sum()

    def extra_repr(self) -> str:
        shape = "x".join(str(size) for size in self.mu.shape)
        one = self.prior_sigma.numel() == 1
        return f"{shape}, prior_sigma={self.prior_sigma.item():.4g}" if one else f"{shape}, a prior for each element"
