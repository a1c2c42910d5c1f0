"""VBLL: a variational last layer whose bound needs no samples."""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from bnn_lightning.core.conversion import bayesianize
from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.kernels.softplus import inverse_softplus, log_softplus
from bnn_lightning.core.layers import BayesianLayer
from bnn_lightning.core.methods import DrawnTogether, Method
from bnn_lightning.core.ops.base import Op
from bnn_lightning.core.posteriors import Gaussian, Joint, Posterior
from bnn_lightning.core.posteriors.last_layer import (
    NoisyGaussian,
    TriangularLastRow,
    TriangularRows,
    triangular_variance,
)
from bnn_lightning.core.posteriors.moments import moments
from bnn_lightning.core.priors import Normal
from bnn_lightning.core.settings import check_positive, check_words
from bnn_lightning.core.whole_network import sampling
from bnn_lightning.inference.base import Step, Terms
from bnn_lightning.inference.last_layer import (
    last_linear_layer,
    outputs_and_features,
    random_layer,
    refuse_choices,
)
from bnn_lightning.inference.variational import Variational
from bnn_lightning.likelihoods import Categorical, Likelihood

_INITIAL_NOISE = 0.1  # standard deviation
# Of each element of a dense factor, measured: itself, its gradient and Adam's two moments, copies that a step makes.
_BYTES_OF_DENSE = 40
Covariance = Literal["diagonal", "dense"]


@dataclass(frozen=True)
class VBLL(Variational):
    """Variational inference for the last layer alone, with a bound on its ELBO that is a formula: nothing is drawn.

    Logits are f_k = w_k phi + b_k + noise N(0, sigma_k^2), with weights and bias of each class Gaussian and all layers
    before deterministic, or frozen. With mean m_k and variance v_k of each logit the loss is the mean of
    -(m_y - log sum_k exp(m_k + v_k / 2)), at least the expected nll by Jensen's inequality, plus kl_weight * KL/N.
    Harrison et al. 2024 (arXiv:2404.11599). The bound falls as sigma_k does, and would drive it to 0; the
    penalty of an inverse-gamma prior, -log p(sigma_k^2) / N, keeps it above. The penalty is in the loss that is
    minimised, and in no number that is reported. Noise is drawn with the bias: of an image's prediction it says the
    same.

    Args:
        lr: the learning rate; null takes the optimiser's default.
        optimizer: as for Variational.
        lr_schedule: as for Variational.
        rho_lr_factor: learning rate of all that sets widths (rho, lower, noise_rho), divided by that of the others.
        kl_weight: the weight of the KL: a number (1 is the bound) or a schedule.
        loss_form: as for Variational.
        samples: 1, for nothing is drawn.
        covariance: of the weights and the bias of a class: diagonal, or dense. Classes are independent.
        layer: the name of the layer, which must give the network's outputs; null is the last linear layer.
        prior_sigma: standard deviation of the prior over weights and biases.
        sigma_init: initial standard deviation of weights and biases.
        noise_shape: of the inverse-gamma prior over sigma_k^2.
        noise_scale: of that prior, whose mode is noise_scale / (noise_shape + 1).
        max_gigabytes: of memory that a dense covariance may take in training.
    """

    brings_method = True
    fixed_in_a_run = ("lr", "optimizer", "rho_lr_factor", "covariance", "layer", "prior_sigma")

    covariance: Covariance = "diagonal"
    layer: str | None = None
    prior_sigma: float = 1.0
    sigma_init: float = 0.05
    noise_shape: float = 1.0
    noise_scale: float = 1.0
    max_gigabytes: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_words(self)
        for name in ("prior_sigma", "sigma_init", "noise_shape", "noise_scale", "max_gigabytes"):
            check_positive(name, getattr(self, name))
        if self.samples != 1:
            raise ValueError(f"samples must be 1 for VBLL, whose bound draws nothing, got {self.samples}.")

    def prepare(self, net: nn.Module, method: Method | None, only: str | list[str]) -> nn.Module:
        refuse_choices("VBLL", method, only)
        name, layer = last_linear_layer(net, self.layer)
        if layer.bias is None or not layer.weight.requires_grad:
            fault = "the bias of which carries the noise" if layer.bias is None else "which is trained"
            lack = "without one" if layer.bias is None else "frozen"
            raise ValueError(f"layer must be a linear layer, {fault}, got {name}, {lack}.")
        self._check_memory(name, layer)
        method_of_layer = _VBLL(self.covariance, layer.in_features, self.prior_sigma, self.sigma_init)
        return bayesianize(net, method_of_layer, [name])

    def _check_memory(self, name: str, layer: nn.Linear) -> None:
        gigabytes = _BYTES_OF_DENSE / 1e9 * layer.out_features * layer.in_features**2
        if self.covariance == "dense" and gigabytes > self.max_gigabytes:
            raise ValueError(
                f"covariance must be one that takes at most max_gigabytes, {self.max_gigabytes:g}, for {name} with "
                f"{layer.out_features} outputs of {layer.in_features} weights, got dense, which takes {gigabytes:.3g} "
                "in training; diagonal has two numbers for each weight."
            )

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, likelihood: Likelihood, step: Step) -> Terms:
        if type(likelihood) is not Categorical or likelihood.label_smoothing:
            is_weighted = getattr(likelihood, "class_weights", None) is not None
            changed = [*likelihood.departures, *(["class weights"] if is_weighted else [])]
            got = f"Categorical with {' and '.join(changed)}" if changed else type(likelihood).__name__
            raise ValueError(
                "likelihood must be Categorical for VBLL, whose bound is that of its nll, without class weights and "
                f"label smoothing, got {got}."
            )
        with sampling(net, False):
            outputs, features = outputs_and_features(net, x)
        layer = random_layer(net)
        nll = bound_on_nll(outputs, variance_of_outputs(layer, features), y)
        terms = self.terms(net, outputs.unsqueeze(0), nll, step)
        penalty = self.noise_penalty(layer)
        return replace(terms, loss=terms.loss + (penalty if self.loss_form == "total" else penalty / step.num_train))

    def noise_penalty(self, layer: BayesianLayer) -> Tensor:
        """-log p(sigma_k^2) in nats, summed over classes, without its constant: (a + 1) log sigma^2 + b / sigma^2."""
        bias = layer.bias
        assert isinstance(bias, NoisyGaussian | TriangularLastRow)
        log_variance = 2 * log_softplus(bias.noise_rho.to(at_least_float32(bias.noise_rho)))
        return ((self.noise_shape + 1) * log_variance + self.noise_scale * (-log_variance).exp()).sum()


def bound_on_nll(mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
    """The mean over examples of log sum_k exp(m_k + v_k / 2) - m_y: at least the expected nll of Gaussian logits.

    Args:
        mean: m, ``(batch, classes)``.
        variance: v, of the same shape.
        y: classes, ``(batch,)``.
    """
    dtype = at_least_float32(mean)
    mean, variance = mean.to(dtype), variance.to(dtype)
    return ((mean + 0.5 * variance).logsumexp(-1) - mean.gather(-1, y.unsqueeze(-1)).squeeze(-1)).mean()


def variance_of_outputs(layer: BayesianLayer, features: Tensor) -> Tensor:
    """The variance of each output of a random linear layer, noise included, ``(batch, outputs)``."""
    weight, bias = layer.weight, layer.bias
    if isinstance(weight, TriangularRows) and isinstance(bias, TriangularLastRow):
        with torch.autocast(features.device.type, enabled=False):
            return triangular_variance(features.to(at_least_float32(features)), weight, bias)
    return moments(layer.op, features, weight, bias)[1]


@dataclass(frozen=True)
class _VBLL(DrawnTogether):
    """The method of the last layer under :class:`VBLL`.

    Args:
        covariance: diagonal or dense.
        features: of the layer's inputs.
        prior_sigma: of the prior.
        sigma_init: initial standard deviation.
        joint: of weight and bias.
    """

    covariance: Covariance
    features: int
    prior_sigma: float
    sigma_init: float
    joint: Joint = field(default_factory=Joint, repr=False, compare=False)

    def weight(self, init: Tensor, op: Op) -> Posterior:
        mu, rho = init.detach().clone(), _rho(init, self.sigma_init)
        if self.covariance == "dense":
            return TriangularRows(mu, self.joint, rho, self.prior_sigma)
        return Gaussian(mu, rho, Normal(0.0, self.prior_sigma))

    def bias(self, init: Tensor) -> Posterior:
        mu, rho, noise = init.detach().clone(), _rho(init, self.sigma_init), _rho(init, _INITIAL_NOISE)
        if self.covariance == "dense":
            return TriangularLastRow(mu, self.joint, rho, self.features, self.prior_sigma, noise)
        return NoisyGaussian(mu, rho, Normal(0.0, self.prior_sigma), noise)


def _rho(like: Tensor, sigma: float) -> Tensor:
    """Rho of that sigma, in the shape of ``like``."""
    return inverse_softplus(torch.full_like(like.detach(), sigma))
