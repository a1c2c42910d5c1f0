"""Variational dropout: the variance alpha of the noise is learnt, against a prior that asks for much of it.

Each method is a place where noise enters and a divergence. :class:`DropoutOnInputs` (A in the papers) puts the noise on
a layer's inputs (correlated: the weights of an input share it), :class:`DropoutOnWeights` (B) on its weights
(independent), or on its outputs, as one study did under the name of B. Variational, hierarchical and sparse differ by
the divergence alone, and another divergence is a class of two lines. Biases carry no noise.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bnn_lightning.core.kernels.local_noise import with_noise
from bnn_lightning.core.methods.base import Method, check_words
from bnn_lightning.core.methods.dropout import with_noisy_inputs
from bnn_lightning.core.ops.base import Op
from bnn_lightning.core.posteriors import (
    HIERARCHICAL,
    KINGMA,
    LOG_UNIFORM,
    THRESHOLD,
    Additive,
    Divergence,
    LearntAlpha,
    Multiplicative,
    Parametrisation,
    Point,
    Posterior,
    unchanged,
)
from bnn_lightning.core.posteriors.moments import moments


@dataclass(frozen=True)
class VariationalDropout(Method, ABC):
    """What methods with a learnt alpha share.

    Args:
        parametrisation: what is learnt: log_alpha, log_sigma2 or log_sigma. Where each weight has an alpha of its own
            the last two make the noise additive, w = theta + sigma eps with alpha = sigma^2 / theta^2; where weights
            share one, sigma is that of the noise relative to the signal.
        p: initial dropout rate, alpha = p / (1 - p), where alpha is learnt.
        sigma_init: initial sigma where the noise is additive; exp(-5) = 0.0067 is the published log sigma^2 of -10.
    """

    parametrisation: Parametrisation = "log_alpha"
    p: float = 0.05
    sigma_init: float = math.exp(-5)

    @property
    @abstractmethod
    def divergence(self) -> Divergence:
        """The KL, a function of alpha: a constant of the class."""

    def __post_init__(self) -> None:
        check_words(self)
        if not 0.0004 <= self.p <= 0.9996:
            raise ValueError(f"p must be an initial dropout rate from 0.0004 to 0.9996, got {self.p}.")
        if self.p / (1 - self.p) > math.exp(self.divergence.valid_to):
            raise ValueError(f"p must be at most 0.5 for {type(self).__name__}, whose alpha ends at 1, got {self.p}.")
        if not (math.isfinite(self.sigma_init) and self.sigma_init > 0):
            raise ValueError(f"sigma_init must be a positive standard deviation such as 0.0067, got {self.sigma_init}.")

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
        alpha: what has an alpha of its own in a linear layer that reads flattened images: each feature (the noise
            stands between flattening and layer), or each channel (it stands between convolution and flattening). In all
            other layers both are the same.
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
    """Noise on the weights of each layer: q(w) = N(theta, alpha theta^2), by local reparameterisation.

    Args:
        noise_on: weights; or outputs with their bias: y = op(x, theta) * (1 + sqrt(alpha) eps) with an eps for each
            element of y, which is no local reparameterisation: the weights of an output share their noise.
        alpha: what has an alpha of its own where noise is on weights: each weight, each output, or the layer. Where it
            is on outputs, each output has.
    """

    noise_on: Literal["weights", "outputs"] = "weights"
    alpha: Literal["weight", "output", "layer"] = "weight"

    def weight(self, init: Tensor, op: Op) -> Posterior:
        theta = init.detach().clone()
        if self.noise_on == "outputs":
            return Multiplicative(theta, self._alpha(init, len(init)), _OverRows(init.dim()), shared=True)
        if self.alpha != "weight":
            ones = (1,) * (init.dim() - 1)
            alpha = self._alpha(init, len(init) if self.alpha == "output" else 1, *ones)
            return Multiplicative(theta, alpha, unchanged, shared=False)
        if self.parametrisation == "log_alpha":
            return Multiplicative(theta, self._alpha(init, *init.shape), unchanged, shared=False)
        log_sigma2 = torch.full_like(theta, 2 * math.log(self.sigma_init))
        return Additive(theta, log_sigma2, self.parametrisation, self.divergence, self._prune_above())

    def _prune_above(self) -> float:
        return math.inf

    def forward(self, op: Op, x: Tensor, weight: Any, bias: Posterior | None) -> Tensor:
        if moments_of_outputs := self.moments(op, x, weight, bias):
            return with_noise(*moments_of_outputs)
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
    """Hierarchical variational dropout on inputs: the prior's variance is at its optimum for each alpha.

    Liu et al. 2019 (arXiv:1811.07533).
    """

    divergence = HIERARCHICAL
    removes_weights = True


@dataclass(frozen=True)
class _Removing(DropoutOnWeights, ABC):
    """Noise on the weights under a KL that drives it past any bound where a weight has no use.

    Args:
        prune_in_training: take the mean of a weight as 0 while its log alpha is above 3, as the authors of Sparse did
            for LeNets: a weight that has lost its signal does not find it again by chance. For additive noise only.
    """

    removes_weights = True

    prune_in_training: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        additive = self.parametrisation != "log_alpha" and self.noise_on == "weights" and self.alpha == "weight"
        if self.prune_in_training and not additive:
            raise ValueError(
                "prune_in_training must be false for multiplicative noise, got True; it goes with parametrisation "
                "log_sigma2 or log_sigma, noise_on weights, and alpha weight."
            )

    def _prune_above(self) -> float:
        return THRESHOLD if self.prune_in_training else math.inf


@dataclass(frozen=True)
class HierarchicalB(_Removing):
    """Hierarchical variational dropout on weights: the prior's variance is at its optimum for each alpha.

    Liu et al. 2019 (arXiv:1811.07533).
    """

    divergence = HIERARCHICAL


@dataclass(frozen=True)
class Sparse(_Removing):
    """Sparse variational dropout: additive noise on weights, KL to the log-uniform prior by Molchanov's approximation.

    Molchanov et al. 2017 (arXiv:1701.05369). Weights whose alpha grows past exp(3) carry no signal and can be removed.
    The KL must be ramped up (LinearWarmup), or it erases the weights before the likelihood has found a use for them.
    """

    divergence = LOG_UNIFORM
    objective = "regularised"

    parametrisation: Parametrisation = "log_sigma2"


@dataclass(frozen=True)
class _OverRows:
    """``(out,)`` in a shape that broadcasts to a weight of ``dimensions``, one number for each row."""

    dimensions: int

    def __call__(self, values: Tensor) -> Tensor:
        return values.view(-1, *(1,) * (self.dimensions - 1))
