"""Variational dropout: the variance alpha of the noise is learnt, under a KL that favours large alpha.

A method is a place where the noise enters and a divergence. :class:`DropoutOnInputs` (A in the papers) has noise on a
layer's inputs, so that the weights of an input share it; :class:`DropoutOnWeights` (B) has independent noise on the
weights or, as one study implemented B, noise on the outputs. Variational, hierarchical and sparse dropout differ in the
divergence; another divergence makes another method in a class of two lines. Biases have no noise.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bnn_lightning.core.kernels.local_noise import with_noise
from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.methods.dropout import with_noisy_inputs
from bnn_lightning.core.ops.base import Op
from bnn_lightning.core.posteriors import (
    HIERARCHICAL,
    KINGMA,
    LOG_ALPHA_THRESHOLD,
    LOG_UNIFORM,
    Additive,
    Divergence,
    LearntAlpha,
    Multiplicative,
    Parametrisation,
    Point,
    Posterior,
    identity,
)
from bnn_lightning.core.posteriors.moments import moments
from bnn_lightning.core.settings import check_positive, check_words


@dataclass(frozen=True)
class VariationalDropout(Method, ABC):
    """What the methods with a learnt alpha share.

    Args:
        parametrisation: the parameter that is learnt: log_alpha, log_sigma2 or log_sigma. With an alpha for each
            weight, the last two make the noise additive, w = theta + sigma eps with alpha = sigma^2 / theta^2. Where
            weights share an alpha, sigma is that of the multiplicative noise, alpha = sigma^2.
        p: initial dropout rate, alpha = p / (1 - p), unless the noise is additive.
        sigma_init: initial sigma of additive noise; exp(-5) = 0.0067 is the published log sigma^2 of -10.
    """

    parametrisation: Parametrisation = "log_alpha"
    p: float = 0.05
    sigma_init: float = math.exp(-5)

    @property
    @abstractmethod
    def divergence(self) -> Divergence:
        """The KL as a function of alpha; a class attribute of each method."""

    def __post_init__(self) -> None:
        check_words(self)
        if not 0.0004 <= self.p <= 0.9996:
            raise ValueError(f"p must be an initial dropout rate from 0.0004 to 0.9996, got {self.p}.")
        if self.p / (1 - self.p) > math.exp(self.divergence.valid_to):
            raise ValueError(f"p must be at most 0.5 for {type(self).__name__}, whose alpha ends at 1, got {self.p}.")
        check_positive("sigma_init", self.sigma_init, "standard deviation such as 0.0067")

    def _alpha(self, init: Tensor, *shape: int) -> LearntAlpha:
        log_alpha = init.new_full(shape, math.log(self.p / (1 - self.p)))
        return LearntAlpha(log_alpha, self.parametrisation, self.divergence)

    @property
    def examples_are_independent(self) -> bool:
        return True

    def bias(self, init: Tensor) -> Point:
        return Point(init.detach().clone())


@dataclass(frozen=True)
class DropoutOnInputs(VariationalDropout, ABC):
    """Noise on the inputs of each layer: y = op(x * (1 + sqrt(alpha) eps), theta), eps ~ N(0, 1) for each element of x.

    Args:
        alpha: what has an alpha of its own in a linear layer behind a Flatten: each feature (noise between Flatten and
            layer) or each channel (noise between convolution and Flatten). In all other layers they are the same.
    """

    alpha: Literal["feature", "channel"] = "feature"

    noise_on = "inputs"

    def weight(self, init: Tensor, op: Op) -> Multiplicative:
        alpha = self._alpha(init, op.in_features if self.alpha == "feature" else op.in_channels)
        return Multiplicative(init.detach().clone(), alpha, op.over_weights, shared=True)

    def forward(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> Tensor:
        return with_noisy_inputs(op, x, weight, bias)


@dataclass(frozen=True)
class DropoutOnWeights(VariationalDropout, ABC):
    """Noise on the weights of each layer, q(w) = N(theta, alpha theta^2), drawn by local reparameterisation.

    Args:
        noise_on: weights; or outputs: y = op(x, theta) * (1 + sqrt(alpha) eps), bias included, with eps ~ N(0, 1) for
            each element of y. The latter is no local reparameterisation: the weights of an output share their noise.
        alpha: what has an alpha of its own where the noise is on weights: each weight, each output, or the layer.
            Where the noise is on outputs, each output has one.
    """

    noise_on: Literal["weights", "outputs"] = "weights"
    alpha: Literal["weight", "output", "layer"] = "weight"

    def weight(self, init: Tensor, op: Op) -> Posterior:
        theta = init.detach().clone()
        if self.noise_on == "outputs":
            return Multiplicative(theta, self._alpha(init, op.out_features), op.over_rows, shared=True)
        if self.alpha != "weight":
            ones = (1,) * (init.dim() - 1)
            alpha = self._alpha(init, op.out_features if self.alpha == "output" else 1, *ones)
            return Multiplicative(theta, alpha, op.over_rows if self.alpha == "output" else identity, shared=False)
        if self.parametrisation == "log_alpha":
            return Multiplicative(theta, self._alpha(init, *init.shape), identity, shared=False)
        log_sigma2 = torch.full_like(theta, 2 * math.log(self.sigma_init))
        return Additive(theta, log_sigma2, self.parametrisation, self.divergence, self._prune_above())

    def _prune_above(self) -> float:
        """The log alpha above which the mean of a weight counts as 0 during training."""
        return math.inf

    def forward(self, op: Op, x: Tensor, weight: Any, bias: Posterior | None) -> Tensor:
        if output_moments := self.moments(op, x, weight, bias):
            return with_noise(*output_moments)
        y = op(x, weight.mean, None if bias is None else bias.mean)
        return y * weight.noise(op.over_outputs(weight.alpha()).expand_as(y)).to(y.dtype)

    def moments(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> tuple[Tensor, Tensor] | None:
        return moments(op, x, weight, bias) if self.noise_on == "weights" else None


@dataclass(frozen=True)
class VariationalA(DropoutOnInputs):
    """Variational dropout A: noise on inputs, KL to the log-uniform prior by Kingma's polynomial, alpha <= 1.

    Kingma et al. 2015 (arXiv:1506.02557), section 3.1.
    """

    divergence = KINGMA
    objective = "regularised"


@dataclass(frozen=True)
class VariationalB(DropoutOnWeights):
    """Variational dropout B: noise on weights, KL to the log-uniform prior by Kingma's polynomial, alpha <= 1.

    Kingma et al. 2015 (arXiv:1506.02557), section 3.2.
    """

    divergence = KINGMA
    objective = "regularised"


@dataclass(frozen=True)
class HierarchicalA(DropoutOnInputs):
    """Hierarchical variational dropout on inputs: the variance of the prior N(0, gamma) is optimal for each alpha.

    Liu et al. 2019 (arXiv:1811.07533).
    """

    divergence = HIERARCHICAL
    removes_weights = True


@dataclass(frozen=True)
class _SparsifyingDropoutOnWeights(DropoutOnWeights, ABC):
    """Noise on the weights under a KL that drives the alpha of unused weights to infinity, so that they can be removed.

    Args:
        prune_in_training: treat the mean of a weight as 0 while its log alpha is above 3, as the authors of Sparse did
            for LeNets: a weight without signal does not regain it by chance. For additive noise only.
    """

    removes_weights = True

    prune_in_training: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        is_additive = self.parametrisation != "log_alpha" and self.noise_on == "weights" and self.alpha == "weight"
        if self.prune_in_training and not is_additive:
            raise ValueError(
                "prune_in_training must be false for multiplicative noise, got True; it goes with parametrisation "
                "log_sigma2 or log_sigma, noise_on weights, and alpha weight."
            )

    def _prune_above(self) -> float:
        return LOG_ALPHA_THRESHOLD if self.prune_in_training else math.inf


@dataclass(frozen=True)
class HierarchicalB(_SparsifyingDropoutOnWeights):
    """Hierarchical variational dropout on weights: the variance of the prior N(0, gamma) is optimal for each alpha.

    Liu et al. 2019 (arXiv:1811.07533).
    """

    divergence = HIERARCHICAL


@dataclass(frozen=True)
class Sparse(_SparsifyingDropoutOnWeights):
    """Sparse variational dropout: additive noise on weights, KL to the log-uniform prior by Molchanov's approximation.

    Molchanov et al. 2017 (arXiv:1701.05369). Weights with alpha above exp(3) carry no signal and can be removed. The KL
    needs a warm-up (LinearWarmup); otherwise it erases the weights before the likelihood has made use of them.
    """

    divergence = LOG_UNIFORM
    objective = "regularised"

    parametrisation: Parametrisation = "log_sigma2"
