"""Posteriors of a last layer that are learnt: a noisy bias, and a dense covariance for each output."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.kernels.noise import standard_normal_like
from bnn_lightning.core.kernels.softplus import log_softplus, softplus, squared_softplus
from bnn_lightning.core.posteriors.base import Posterior
from bnn_lightning.core.posteriors.gaussian import Gaussian
from bnn_lightning.core.posteriors.joint import Joint, JointPart, JointWeight
from bnn_lightning.core.priors import Normal


class NoisyGaussian(Gaussian):
    """q(b) = N(mu, softplus(rho)^2) of a bias to which the model adds noise N(0, softplus(noise_rho)^2).

    Variance and samples have both; the KL is that of the bias alone, for noise is no parameter of which q is the
    posterior. The noise of an output is independent from example to example, which a draw for the whole batch is not:
    for each example by itself it makes no difference.

    Args:
        mu: initial means.
        rho: initial rho.
        prior: of the bias.
        noise_rho: initial rho of the noise.
    """

    def __init__(self, mu: Tensor, rho: Tensor, prior: Normal, noise_rho: Tensor):
        super().__init__(mu, rho, prior)
        self.noise_rho = nn.Parameter(noise_rho)

    @property
    def width_parameters(self) -> tuple[str, ...]:
        return ("rho", "noise_rho")

    @property
    def variance(self) -> Tensor:
        return super().variance + squared_softplus(self.noise_rho)

    def sample(self) -> Tensor:
        return torch.addcmul(super().sample(), softplus(self.noise_rho), standard_normal_like(self.mu))

    def log_alpha(self) -> Tensor:
        return Posterior.log_alpha(self)


class TriangularRows(JointWeight):
    """w_k = mu_k + L_k eps_k for each output k: the rows of a dense Cholesky factor that belong to the weights.

    L_k is lower triangular, with softplus(rho_k) on its diagonal and ``lower`` below it. The prior is N(0, sigma^2).

    Args:
        mu: initial weights, ``(outputs, features)``.
        joint: of weights and bias.
        rho: initial rho, of the same shape.
        prior_sigma: of the prior.
    """

    def __init__(self, mu: Tensor, joint: Joint, rho: Tensor, prior_sigma: float):
        super().__init__(mu, joint)
        self.rho = nn.Parameter(rho)
        self.lower = nn.Parameter(mu.new_zeros(*mu.shape, mu.shape[-1]))
        self.prior = Normal(0.0, prior_sigma)

    @property
    def width_parameters(self) -> tuple[str, ...]:
        return ("rho", "lower")

    def output_factor(self, x: Tensor, bias: Any) -> Tensor:
        return torch.diag_embed(triangular_variance(x, self, bias).sqrt())  # outputs are independent

    def factor(self) -> Tensor:
        """L, ``(outputs, features, features)``."""
        return self.lower.tril(-1) + torch.diag_embed(softplus(self.rho))

    @property
    def variance(self) -> Tensor:
        return self.factor().square().sum(-1)

    def noise(self) -> Tensor:
        return standard_normal_like(self.mu)

    def given(self, noise: Tensor) -> Tensor:
        return self.mu + (self.factor() @ noise.unsqueeze(-1)).squeeze(-1)

    def kl(self) -> Tensor:
        return _share_of_kl(self.mu, self.rho, self.lower.tril(-1), float(self.prior.sigma))


class TriangularLastRow(JointPart):
    """b_k = mu_k + c_k eps_k + softplus(rho_k) e_k, with the eps_k of the weights: the last row of the factor.

    To the bias the model adds noise as in :class:`NoisyGaussian`.

    Args:
        mu: initial biases, ``(outputs,)``.
        joint: of weights and bias.
        rho: initial rho, of the same shape.
        features: of the weights.
        prior_sigma: of the prior.
        noise_rho: initial rho of the noise.
    """

    def __init__(self, mu: Tensor, joint: Joint, rho: Tensor, features: int, prior_sigma: float, noise_rho: Tensor):
        super().__init__(mu, joint)
        self.rho, self.noise_rho = nn.Parameter(rho), nn.Parameter(noise_rho)
        self.lower = nn.Parameter(mu.new_zeros(len(mu), features))
        self.prior = Normal(0.0, prior_sigma)

    @property
    def width_parameters(self) -> tuple[str, ...]:
        return ("rho", "lower", "noise_rho")

    def own_variance(self) -> Tensor:
        """The variance of what it does not share with the weights."""
        return squared_softplus(self.rho) + squared_softplus(self.noise_rho)

    @property
    def variance(self) -> Tensor:
        return self.lower.square().sum(-1) + self.own_variance()

    def noise(self) -> Tensor:
        return standard_normal_like(self.lower)

    def given(self, noise: Tensor) -> Tensor:
        shared = self.mu + (self.lower * noise).sum(-1)
        return torch.addcmul(shared, self.own_variance().sqrt(), standard_normal_like(self.mu))

    def kl(self) -> Tensor:
        return _share_of_kl(self.mu, self.rho, self.lower, float(self.prior.sigma))


def _share_of_kl(mu: Tensor, rho: Tensor, lower: Tensor, prior_sigma: float) -> Tensor:
    """The terms of KL(N(mu, L L^T) || N(0, s^2 I)) that rows of L have.

    For a row with diagonal element d: (|row|^2 + mu^2) / (2 s^2) - 1/2 - log(d / s).
    """
    dtype = at_least_float32(mu)
    mu, rho, lower = mu.to(dtype), rho.to(dtype), lower.to(dtype)
    squares = lower.square().sum() + squared_softplus(rho).sum() + mu.square().sum()
    count = mu.numel()
    return 0.5 * squares / prior_sigma**2 - count * (0.5 - math.log(prior_sigma)) - log_softplus(rho).sum()


def triangular_variance(x: Tensor, weight: TriangularRows, bias: TriangularLastRow) -> Tensor:
    """The variance of each output for inputs ``(batch, features)`` under dense covariances: ``(batch, outputs)``."""
    shared = torch.einsum("bi,kij->bkj", x, weight.factor()) + bias.lower
    return shared.square().sum(-1) + bias.own_variance()
