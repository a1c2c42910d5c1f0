"""Methods with a Gaussian posterior over every weight: Bayes by backprop and local reparameterisation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from bnn_lightning.methods.base import Method, Op
from bnn_lightning.posteriors import Gaussian, Posterior

_PRIORS_DICT = {
    "prior_mu": "prior_mu",
    "prior_sigma": "prior_sigma",
    "posterior_mu_initial": "mu_init",
    "posterior_rho_initial": "rho_init",
}


@dataclass(frozen=True)
class GaussianMethod(Method):
    """What BBB and LRT share: q(w) = N(mu, softplus(rho)^2) against a prior N(prior_mu, prior_sigma^2).

    Args:
        prior_sigma: standard deviation (not variance) of the prior over each weight and bias.
        prior_mu: mean of the prior.
        mu_init: mean and std of the normal that initial means are drawn from; null keeps the layer's own values, so
            that a trained network gives its weights as means.
        rho_init: mean and std of the normal that initial rho are drawn from; sigma(-5) = 0.0067, sigma(-3) = 0.0486.
    """

    prior_sigma: float = 0.1
    prior_mu: float = 0.0
    mu_init: tuple[float, float] | None = None
    rho_init: tuple[float, float] = (-5.0, 0.1)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.prior_sigma) and self.prior_sigma > 0):
            raise ValueError(f"prior_sigma must be a positive standard deviation such as 0.1, got {self.prior_sigma}.")
        if not math.isfinite(self.prior_mu):
            raise ValueError(f"prior_mu must be a finite number such as 0, got {self.prior_mu}.")
        for name in ("mu_init", "rho_init"):
            value = getattr(self, name)
            if value is None and name == "mu_init":
                continue
            if value is None or len(value) != 2 or not all(map(math.isfinite, value)) or value[1] < 0:
                raise ValueError(f"{name} must be (mean, std) with std >= 0, such as (-5, 0.1), got {value}.")

    @classmethod
    def from_priors(cls, priors: Mapping[str, Any] | None) -> Self:
        """The method that a ``priors`` dict of PyTorch-BayesianCNN describes, with that dict's documented defaults.

        Keys: ``prior_mu`` (0), ``prior_sigma`` (0.1), ``posterior_mu_initial`` ((0, 0.1)), ``posterior_rho_initial``
        ((-3, 0.1)).

        Raises:
            ValueError: for any other key.
        """
        given = dict(priors or {})
        unknown = sorted(set(given) - set(_PRIORS_DICT))
        if unknown:
            raise ValueError(f"priors has the unknown key {unknown[0]!r}; known keys: {', '.join(_PRIORS_DICT)}.")
        settings: dict[str, Any] = {"prior_mu": 0.0, "prior_sigma": 0.1, "mu_init": (0.0, 0.1), "rho_init": (-3.0, 0.1)}
        return cls(**settings | {_PRIORS_DICT[key]: value for key, value in given.items()})

    def weight(self, init: Tensor) -> Posterior:
        init = init.detach()
        mu = init.clone() if self.mu_init is None else torch.empty_like(init).normal_(*self.mu_init)
        rho = torch.empty_like(init).normal_(*self.rho_init)
        return Gaussian(mu, rho, self.prior_mu, self.prior_sigma)

    def bias(self, init: Tensor) -> Posterior:
        return self.weight(init)


@dataclass(frozen=True)
class BBB(GaussianMethod):
    """Bayes by backprop: one draw w = mu + sigma * eps for the whole batch, y = op(x, w).

    Blundell et al. 2015 (arXiv:1505.05424), section 3.2. S samples need S forward passes.
    """

    def forward(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> Tensor:
        return op(x, weight.sample(), None if bias is None else bias.sample())


@dataclass(frozen=True)
class LRT(GaussianMethod):
    """Local reparameterisation: noise on the outputs, with the mean and variance that random weights would give them.

    y = m + sqrt(v + eps) * zeta with m = op(x, mean of w, mean of b), v = op(x^2, variance of w, variance of b) and
    zeta ~ N(0, 1) of y's shape. Kingma et al. 2015 (arXiv:1506.02557), section 2.3; for convolutions Shridhar et al.
    2018 (arXiv:1806.05978). Every example has noise of its own, so gradients vary less than under BBB.

    Exact for linear layers. For convolutions the marginals are exact, but weights shared across space make outputs
    correlated and LRT draws them independently: weight draws and local draws are two different predictives.

    eps is 1e-16: without it, a patch of zeros under a layer without bias has v = 0 and the gradient of the square root
    is infinite.
    """

    def forward(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> Tensor:
        mean = op(x, weight.mean, None if bias is None else bias.mean)
        # sigma^2 is near 1e-5: half precision rounds it to 8 bits or to zero, so this path stays in float32.
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.promote_types(x.dtype, torch.float32)
            variance = op(
                x.to(dtype).square(), weight.variance.to(dtype), None if bias is None else bias.variance.to(dtype)
            )
            return AddNoise.apply(mean.to(dtype), variance, _standard_normal_like(variance))[0].to(mean.dtype)


class AddNoise(torch.autograd.Function):
    """mean + sqrt(variance + 1e-16) * noise, with one saved tensor where autograd would keep three."""

    generate_vmap_rule = True

    @staticmethod
    def forward(mean: Tensor, variance: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        std = (variance + 1e-16).sqrt_()
        return torch.addcmul(mean, std, noise), torch.div(noise, std).mul_(0.5)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, Tensor, None]:
        (half_noise_over_std,) = ctx.saved_tensors
        return grad, grad * half_noise_over_std, None


def _standard_normal_like(x: Tensor) -> Tensor:
    """N(0, 1) noise with the shape and memory format of ``x``."""
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        # Drawing straight into a channels_last tensor takes torch's slow strided path, several times as long.
        return torch.randn_like(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return torch.randn_like(x)
