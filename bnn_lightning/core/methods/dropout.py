"""Dropout at a fixed rate: Bernoulli (MC dropout), and Gaussian on inputs or on weights.

Only the weights are learnt. There is no KL, and biases have no noise. At dropout rate p the multiplicative noise has
mean 1 and variance alpha = p / (1 - p).
"""

from abc import ABC
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bnn_lightning.core.kernels.local_noise import with_noise
from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.ops.base import Op
from bnn_lightning.core.posteriors import FixedAlpha, Multiplicative, Point, Posterior, identity
from bnn_lightning.core.posteriors.moments import moments
from bnn_lightning.core.settings import check_words


def with_noisy_inputs(op: Op, x: Tensor, weight: Any, bias: Posterior | None) -> Tensor:
    """op(x * z, mean weight, mean bias) with noise z drawn independently for each element of ``x``.

    Args:
        op: the layer's arithmetic.
        x: the layer's input.
        weight: a :class:`~bnn_lightning.Multiplicative` posterior with one alpha for each input feature or channel,
            the variance of z there.
        bias: of the layer.
    """
    # The noise is computed in the dtype of alpha, also where the layer runs in half precision.
    z = weight.noise(op.over_inputs(weight.alpha()).expand_as(x))
    return op(x * z.to(x.dtype), weight.mean, None if bias is None else bias.mean)


def channel_noise(op: Op, x: Tensor, weight: Any) -> Tensor:
    """Noise z for each example and channel of ``x``, constant over space, in a shape that broadcasts to ``x``.

    Args:
        op: the layer's arithmetic.
        x: the layer's input.
        weight: a :class:`~bnn_lightning.Multiplicative` posterior with one alpha for each channel.
    """
    alpha, shape = weight.alpha(), op.example_shape(x)
    # Behind a Flatten each channel has several features.
    channel_of = op.over_inputs(torch.arange(len(alpha), device=x.device)).flatten()
    examples = shape.numel() // len(channel_of)
    return weight.noise(alpha.expand(examples, -1))[:, channel_of].view(shape)


@dataclass(frozen=True)
class FixedDropout(Method, ABC):
    """What the dropout methods at a fixed rate share.

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
class _FixedDropoutOnInputs(FixedDropout, ABC):
    """Noise on the inputs of each layer.

    Args:
        mask: what has noise of its own: each element, pixels included, or each channel, whose noise is the same at all
            pixels of an image (Tompson et al. 2015, arXiv:1411.4280), also behind a Flatten.
        shared: draw one mask for the whole batch instead of one for each example. It is that of a draw of the weights,
            which drops whole columns of them: all weights of an input. Then weights can be drawn for test and predict,
            the same for all images. Convolutions drop channels then under either ``mask``.
    """

    free_after_training = ("shared",)

    mask: Literal["element", "channel"] = "element"
    shared: bool = False

    bernoulli: ClassVar[bool]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_words(self)

    @property
    def noise_on(self) -> Literal["weights", "inputs"]:
        return "weights" if self.shared else "inputs"

    @property
    def examples_are_independent(self) -> bool:
        return not self.shared

    @property
    def noise_on_elements(self) -> bool:
        return self.mask == "element"

    def weight(self, init: Tensor, op: Op) -> Multiplicative:
        alpha = self._alpha(init, op.in_features if self.mask == "element" else op.in_channels)
        return Multiplicative(init.detach().clone(), alpha, op.over_weights, shared=True, bernoulli=self.bernoulli)

    def forward(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> Tensor:
        if self.shared:
            return op(x, weight.sample(), None if bias is None else bias.mean)
        if self.mask == "element":
            return with_noisy_inputs(op, x, weight, bias)
        return op(x * channel_noise(op, x, weight).to(x.dtype), weight.mean, None if bias is None else bias.mean)


@dataclass(frozen=True)
class MCDropout(_FixedDropoutOnInputs):
    """Bernoulli dropout before each layer, also in prediction: y = op(x * z / (1 - p), theta), z ~ Bernoulli(1 - p).

    Srivastava et al. 2014; as approximate inference Gal & Ghahramani 2016 (arXiv:1506.02142), whose posterior over the
    weights ``shared`` draws from.
    """

    bernoulli = True


@dataclass(frozen=True)
class GaussianS(_FixedDropoutOnInputs):
    """Gaussian dropout on inputs: y = op(x * (1 + sqrt(alpha) eps), theta), eps ~ N(0, 1).

    Srivastava et al. 2014, section 10.
    """

    bernoulli = False


@dataclass(frozen=True)
class GaussianW(FixedDropout):
    """Gaussian dropout on weights, q(w) = N(theta, alpha theta^2), with the noise drawn at the outputs.

    y ~ N(op(x, theta), alpha op(x^2, theta^2)) by local reparameterisation. Wang & Manning 2013, "Fast dropout
    training".
    """

    def weight(self, init: Tensor, op: Op) -> Multiplicative:
        alpha = self._alpha(init, *(1 for _ in init.shape))
        return Multiplicative(init.detach().clone(), alpha, identity, shared=False)

    def forward(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> Tensor:
        return with_noise(*self.moments(op, x, weight, bias))

    def moments(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> tuple[Tensor, Tensor]:
        return moments(op, x, weight, bias)
