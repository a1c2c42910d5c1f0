"""Dropout with a fixed rate: MC dropout (Bernoulli), and its Gaussian forms on inputs and on weights.

Nothing is learnt but the weights, there is no KL, and biases carry no noise. The variance of the multiplicative noise
is alpha = p / (1 - p) for a dropout rate p.
"""

from abc import ABC
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from bnn_lightning.core.kernels.local_noise import with_noise
from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.ops.base import Op
from bnn_lightning.core.posteriors import FixedAlpha, Multiplicative, Point, Posterior, unchanged
from bnn_lightning.core.posteriors.moments import moments


def with_noisy_inputs(op: Op, x: Tensor, weight: Any, bias: Posterior | None) -> Tensor:
    """op(x * z, mean weights), with an independent z for each element of x and a variance for each input channel."""
    # Noise is formed in the precision of alpha, also where the layer runs in half precision.
    z = weight.noise(op.over_inputs(weight.alpha()).expand_as(x))
    return op(x * z.to(x.dtype), weight.mean, None if bias is None else bias.mean)


@dataclass(frozen=True)
class FixedDropout(Method, ABC):
    """What dropout methods with a fixed rate share.

    Args:
        p: the dropout rate, from 0 to below 1; the noise has variance p / (1 - p).
    """

    p: float = 0.5

    objective = "likelihood"

    def __post_init__(self) -> None:
        if not 0 <= self.p < 1:
            raise ValueError(f"p must be a dropout rate from 0 to below 1, got {self.p}.")

    def _alpha(self, init: Tensor, *shape: int) -> FixedAlpha:
        return FixedAlpha(init.new_full(shape, self.p / (1 - self.p)))

    @property
    def examples_are_independent(self) -> bool:
        return True

    def bias(self, init: Tensor) -> Point:
        return Point(init.detach().clone())


@dataclass(frozen=True)
class _OnInputs(FixedDropout, ABC):
    """Noise on the inputs of each layer, for each element of x."""

    bernoulli: ClassVar[bool]

    noise_on = "inputs"

    def weight(self, init: Tensor, op: Op) -> Multiplicative:
        alpha = self._alpha(init, op.in_features)
        return Multiplicative(init.detach().clone(), alpha, op.over_weights, shared=True, bernoulli=self.bernoulli)

    def forward(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> Tensor:
        return with_noisy_inputs(op, x, weight, bias)


@dataclass(frozen=True)
class MCDropout(_OnInputs):
    """Bernoulli dropout before each layer, also when predicting: y = op(x * z / (1 - p), theta), z ~ Bernoulli(1 - p).

    Srivastava et al. 2014; as approximate inference Gal & Ghahramani 2016 (arXiv:1506.02142). z is drawn for each
    element of x, pixels included.
    """

    bernoulli = True


@dataclass(frozen=True)
class GaussianS(_OnInputs):
    """Gaussian dropout on inputs: y = op(x * (1 + sqrt(alpha) eps), theta), eps ~ N(0, 1) for each element of x.

    Srivastava et al. 2014, section 10.
    """

    bernoulli = False


@dataclass(frozen=True)
class GaussianW(FixedDropout):
    """Gaussian dropout on weights, drawn at the outputs: q(w) = N(theta, alpha theta^2), y by local reparameterisation.

    Wang & Manning 2013, "Fast dropout training".
    """

    def weight(self, init: Tensor, op: Op) -> Multiplicative:
        alpha = self._alpha(init, *(1 for _ in init.shape))
        return Multiplicative(init.detach().clone(), alpha, unchanged, shared=False)

    def forward(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> Tensor:
        return with_noise(*self.moments(op, x, weight, bias))

    def moments(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> tuple[Tensor, Tensor]:
        return moments(op, x, weight, bias)
