"""Gaussian, the posterior with an independent normal distribution for each weight."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.kernels.gaussian_kl import GaussianKL
from bnn_lightning.core.kernels.noise import standard_normal_like
from bnn_lightning.core.kernels.softplus import log_softplus, softplus, squared_softplus
from bnn_lightning.core.posteriors.base import Posterior, shape_text
from bnn_lightning.core.priors import Normal, Prior


class Gaussian(Posterior):
    """q(w) = N(mu, sigma^2) for each element independently, with sigma = softplus(rho).

    Blundell et al. 2015 (arXiv:1505.05424), section 3.2. ``mu`` and ``rho`` are parameters. Tensors of the prior are
    buffers named ``prior_...``; mean and standard deviation of a normal prior become tensors, also if they are numbers.

    Args:
        mu: initial means.
        rho: initial rho, of the same shape; softplus(-3) = 0.0486, softplus(-5) = 0.00672.
        prior: the prior of this tensor, a dataclass.
    """

    def __init__(self, mu: Tensor, rho: Tensor, prior: Prior):
        super().__init__()
        self.mu = nn.Parameter(mu)
        self.rho = nn.Parameter(rho)
        self._has_normal_prior = type(prior) is Normal
        self._prior = prior
        self._prior_tensors = []
        for name in (field.name for field in fields(prior)):
            value = getattr(prior, name)
            if self._has_normal_prior:
                value = torch.as_tensor(value, dtype=mu.dtype, device=mu.device)
            if isinstance(value, Tensor):
                self.register_buffer(f"prior_{name}", value)
                self._prior_tensors.append(name)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # Earlier releases saved mean and sigma of a normal prior beside every other prior too.
        for name in {"mu", "sigma"} - set(self._prior_tensors):
            state_dict.pop(f"{prefix}prior_{name}", None)
        # A tensor may have a prior for each element there, and one for all here: of a network that began from weights.
        for name in self._prior_tensors:
            saved = state_dict.get(f"{prefix}prior_{name}", self.get_buffer(f"prior_{name}"))
            if saved.shape != self.get_buffer(f"prior_{name}").shape and saved.shape in ((), self.mu.shape):
                self.register_buffer(f"prior_{name}", torch.empty_like(saved, device=self.mu.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @property
    def prior(self) -> Prior:
        """The prior with the current tensors: on this module's device, and as its checkpoint has set them."""
        return replace(self._prior, **{name: getattr(self, f"prior_{name}") for name in self._prior_tensors})

    @property
    def width_parameters(self) -> tuple[str, ...]:
        return ("rho",)

    @property
    def sigma(self) -> Tensor:
        """The standard deviation of each element."""
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
            tensors = (getattr(posterior, name).to(dtype) for name in names for posterior in group)
            terms.append(GaussianKL.apply(len(group), *tensors)[0])
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0]

    def extra_repr(self) -> str:
        prior = repr(self._prior)
        if self._has_normal_prior:
            sigma = self.get_buffer("prior_sigma")
            prior = f"prior_sigma={sigma.item():.4g}" if sigma.numel() == 1 else "a prior for each element"
        return f"{shape_text(self.mu)}, {prior}"
