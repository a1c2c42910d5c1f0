"""Methods with a Gaussian posterior for each weight: Bayes by backprop, Flipout, local reparameterisation."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor

from bnn_lightning.core.kernels.local_noise import with_noise
from bnn_lightning.core.kernels.softplus import inverse_softplus
from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.ops.base import Op, fan_in
from bnn_lightning.core.posteriors import Gaussian, Posterior
from bnn_lightning.core.posteriors.moments import moments
from bnn_lightning.core.priors import Normal, Prior
from bnn_lightning.core.settings import check_finite, check_not_negative, check_positive

# Keys of PyTorch-BayesianCNN's `priors` dict, and the settings that they become.
_SETTING_OF_PRIORS_KEY = {
    "prior_mu": "prior_mu",
    "prior_sigma": "prior_sigma",
    "posterior_mu_initial": "mu_init",
    "posterior_rho_initial": "rho_init",
}

_MIN_MOPED_SIGMA = 1e-6  # the initial sigma of a weight whose trained value is 0


@dataclass(frozen=True)
class GaussianMethod(Method):
    """What BBB, Flipout and LRT share: q(w) = N(mu, softplus(rho)^2) and a prior N(prior_mu, prior_sigma^2).

    ``posterior`` takes another family of posteriors, ``prior`` another prior.

    Args:
        prior_sigma: standard deviation (not variance) of the prior over each weight and bias.
        prior_mu: mean of the prior.
        mu_init: mean and std of the normal from which initial means are drawn; null takes the layer's own values, so
            that the weights of a trained network become the means. he is N(0, 2 / fan-in) for weights, which keeps the
            scale of activations behind ReLU (He et al. 2015, arXiv:1502.01852, eq. 10), and the layer's own values for
            biases.
        rho_init: mean and std of the normal from which initial rho are drawn; softplus(-5) = 0.0067, softplus(-3) =
            0.0486.
        prior: another prior, such as ScaleMixture or LearntScale; null is Normal(prior_mu, prior_sigma).
        moped_delta: if positive, the initial sigma is moped_delta * |mu| and the prior is N(mu, prior_sigma^2) around
            the initial mean mu, as in MOPED (Krishnan et al. 2020, arXiv:1906.05323). 0 switches that off. null is 0,
            but 0.1 where init_from loads trained weights and the prior is normal. Under LowRank and Radial sigma is
            what they make of rho: means over rows and columns, and sqrt(n) times the standard deviation.
        posterior: another family of posteriors: a class that is created from (mu, rho, prior) and settings of its own.
    """

    prior_sigma: float = 0.1
    prior_mu: float = 0.0
    mu_init: tuple[float, float] | Literal["he"] | None = None
    rho_init: tuple[float, float] = (-5.0, 0.1)
    prior: Prior | None = None
    moped_delta: float | None = None
    posterior: Callable[[Tensor, Tensor, Prior], Posterior] = field(default=Gaussian, repr=False)

    def __post_init__(self) -> None:
        check_positive("prior_sigma", self.prior_sigma, "standard deviation such as 0.1")
        check_finite("prior_mu", self.prior_mu)
        check_not_negative("moped_delta", self.moped_delta)
        if self.moped_delta and not isinstance(self._prior, Normal):
            raise ValueError(
                f"moped_delta must be 0 with {type(self.prior).__name__}, which has no mean for each weight, "
                f"got {self.moped_delta}."
            )
        object.__setattr__(self, "rho_init", _pair("rho_init", self.rho_init))
        if self.mu_init not in (None, "he"):
            object.__setattr__(self, "mu_init", _pair("mu_init", self.mu_init, ", or he"))

    @classmethod
    def from_priors(cls, priors: Mapping[str, Any] | None) -> Self:
        """The method that a ``priors`` dict of PyTorch-BayesianCNN describes, with the defaults of that package.

        Keys and defaults: ``prior_mu`` 0, ``prior_sigma`` 0.1, ``posterior_mu_initial`` (0, 0.1),
        ``posterior_rho_initial`` (-3, 0.1).

        Raises:
            ValueError: for any other key.
        """
        given = dict(priors or {})
        unknown = sorted(set(given) - set(_SETTING_OF_PRIORS_KEY))
        if unknown:
            raise ValueError(
                f"priors has the unknown key {unknown[0]!r}; known keys: {', '.join(_SETTING_OF_PRIORS_KEY)}."
            )
        settings: dict[str, Any] = {"prior_mu": 0.0, "prior_sigma": 0.1, "mu_init": (0.0, 0.1), "rho_init": (-3.0, 0.1)}
        return cls(**settings | {_SETTING_OF_PRIORS_KEY[key]: value for key, value in given.items()})

    @property
    def _prior(self) -> Prior:
        return Normal(self.prior_mu, self.prior_sigma) if self.prior is None else self.prior

    def weight(self, init: Tensor, op: Op | None = None) -> Posterior:
        return self._formed(init.detach(), op, self._prior.for_tensor(init, op))

    def _formed(self, init: Tensor, op: Op | None, prior: Any) -> Posterior:
        mu = self._initial_mean(init, op)
        if self.moped_delta:
            rho = inverse_softplus((self.moped_delta * mu.abs()).clamp_min(_MIN_MOPED_SIGMA))
            prior = replace(prior, mu=mu.clone())
        else:
            rho = torch.empty_like(init).normal_(*self.rho_init)
        posterior = self.posterior(mu, rho, prior)
        self.check_posterior(posterior)
        return posterior

    def _initial_mean(self, init: Tensor, op: Op | None) -> Tensor:
        if isinstance(self.mu_init, tuple):
            return torch.empty_like(init).normal_(*self.mu_init)
        if self.mu_init is None or op is None:
            return init.clone()
        return torch.empty_like(init).normal_(0, math.sqrt(2 / fan_in(init, op)))

    def bias(self, init: Tensor) -> Posterior:
        return self.weight(init)

    def scale(self, init: Tensor) -> Posterior:
        return self._formed(init.detach(), None, self._prior.for_tensor(init).shifted(1.0))

    def check_posterior(self, posterior: Posterior) -> None:
        """Checks that the method's noise is right for a family of posteriors.

        Raises:
            ValueError: when it is not.
        """

    def pretrained(self) -> Self:
        delta = 0.1 if isinstance(self._prior, Normal) else 0.0
        return replace(self, mu_init=None, moped_delta=delta if self.moped_delta is None else self.moped_delta)


@dataclass(frozen=True)
class BBB(GaussianMethod):
    """Bayes by backprop: one draw w = mu + sigma * eps for the whole batch, y = op(x, w).

    Blundell et al. 2015 (arXiv:1505.05424), section 3.2. S samples take S forward passes.
    """

    def forward(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> Tensor:
        return op(x, weight.sample(), None if bias is None else bias.sample())


@dataclass(frozen=True)
class Flipout(GaussianMethod):
    """Flipout: one draw of the weights for the batch, whose noise changes signs at random from example to example.

    y_n = op(x_n, mu) + op(x_n * s_n, dw) * r_n + b + db * t_n with one draw mu + dw of the weight and b + db of the
    bias, and random signs s_n for each input channel, r_n and t_n for each output channel. Wen et al. 2018
    (arXiv:1803.04386), eq. 4. Signs are constant over an image, so each example's output is that of one weight draw,
    with the correlations across space that BBB has. The noise of two examples is uncorrelated.
    """

    def check_posterior(self, posterior: Posterior) -> None:
        if not posterior.is_symmetric:
            raise ValueError(
                f"posterior must be unchanged by flipped signs of its noise for Flipout, which flips them from example "
                f"to example, got {type(posterior).__name__}; use BBB."
            )

    def forward(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> Tensor:
        mean = op(x, weight.mean, None if bias is None else bias.mean)
        perturbation = op(x * _random_signs(op, x), weight.sample() - weight.mean, None)
        y = torch.addcmul(mean, perturbation, _random_signs(op, perturbation))
        if bias is None:
            return y
        return y + op.over_outputs(bias.sample() - bias.mean).to(y.dtype) * _random_signs(op, y)


@dataclass(frozen=True)
class LRT(GaussianMethod):
    """Local reparameterisation: noise on the outputs, with the mean and variance that random weights give them.

    y = m + sqrt(v + eps) * zeta with m = op(x, mean of w, mean of b), v = op(x^2, variance of w, variance of b) and
    zeta ~ N(0, 1) of the shape of y. Kingma et al. 2015 (arXiv:1506.02557), section 2.3; for convolutions Shridhar et
    al. 2018 (arXiv:1806.05978). Each example has noise of its own, so gradients have less variance than under BBB.

    For linear layers this is the exact distribution of the outputs. For convolutions each output has its exact
    distribution, but shared weights correlate the outputs of different pixels, and LRT draws them independently: weight
    draws and local draws then give two different predictive distributions.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self._prior.has_closed_kl:
            raise ValueError(
                f"prior must be one whose KL is exact, such as Normal or LearntScale, for LRT, which draws no weights "
                f"to estimate it at, got {self.prior}; use BBB or Flipout."
            )

    def check_posterior(self, posterior: Posterior) -> None:
        if not posterior.is_factorised:
            raise ValueError(
                f"posterior must have independent elements for LRT, which draws each output by itself, got "
                f"{type(posterior).__name__}, whose elements are correlated; use BBB."
            )

    @property
    def examples_are_independent(self) -> bool:
        return True

    def forward(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> Tensor:
        return with_noise(*self.moments(op, x, weight, bias))

    def moments(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> tuple[Tensor, Tensor]:
        return moments(op, x, weight, bias)


def _random_signs(op: Op, x: Tensor) -> Tensor:
    """-1 or 1 with equal probability for each example and channel of ``x``: ``(batch, channels, 1, 1)`` for images."""
    # From random integers: the sign of a uniform number can be 0.
    return torch.randint(0, 2, op.example_shape(x), device=x.device).to(x.dtype).mul_(2).sub_(1)


def _pair(name: str, value: Any, others: str = "") -> tuple[float, float]:
    """A mean and a standard deviation as a tuple: methods are keys of dicts, and lists have no hash."""
    pair = tuple(value) if isinstance(value, list | tuple) else ()
    is_pair = len(pair) == 2 and all(isinstance(number, int | float) and math.isfinite(number) for number in pair)
    if not is_pair or pair[1] < 0:
        raise ValueError(f"{name} must be (mean, std) with std >= 0, such as (-5, 0.1){others}, got {value}.")
    return pair
