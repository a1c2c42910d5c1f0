"""Rank1Weight, a trained weight times the outer product of two random vectors."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.kernels.gaussian_kl import gaussian_kl
from bnn_lightning.core.kernels.noise import standard_normal_like
from bnn_lightning.core.kernels.softplus import log_softplus, softplus
from bnn_lightning.core.posteriors.base import Posterior, shape_text
from bnn_lightning.core.posteriors.multiplicative import identity

Family = Literal["gaussian", "cauchy"]


class RandomFactor(nn.Module):
    """A random vector with independent elements, of the location 1 + shift and the scale softplus(rho).

    ``shift`` and ``rho`` are parameters. Weight decay draws ``shift`` to 0, and so the location to 1, where the prior
    has it.

    Args:
        rho: initial rho, ``(count,)``; the initial location is 1.
        family: gaussian or cauchy, of posterior and prior; the scale is the standard deviation of the first, and half
            the width at half the height of the second.
        prior_scale: scale of the prior, whose location is 1.
    """

    def __init__(self, rho: Tensor, family: Family, prior_scale: float):
        super().__init__()
        self.family, self.prior_scale = family, prior_scale
        self.shift = nn.Parameter(torch.zeros_like(rho))
        self.rho = nn.Parameter(rho)

    @property
    def location(self) -> Tensor:
        """``(count,)``: the mean of a Gaussian, the median of a Cauchy distribution."""
        return 1 + self.shift

    @property
    def scale(self) -> Tensor:
        """``(count,)``."""
        return softplus(self.rho)

    def sample(self, over: Callable[[Tensor], Tensor] = identity, shape: torch.Size | None = None) -> Tensor:
        """One draw ``(count,)``; or independent draws of ``shape``, which ``over`` of the location broadcasts to."""
        location = over(self.location)
        location = location if shape is None else location.expand(shape)
        return torch.addcmul(location, over(self.scale), self._noise(location))

    def _noise(self, like: Tensor) -> Tensor:
        if self.family == "gaussian":
            return standard_normal_like(like)
        uniform = torch.rand_like(like, dtype=at_least_float32(like))
        return ((uniform - 0.5) * math.pi).tan().to(like.dtype)

    def second_moment(self) -> Tensor:
        """E of the square of each element, ``(count,)``, of the Gaussian family."""
        return self.location.square() + self.scale.square()

    def kl(self) -> Tensor:
        """KL(posterior || prior) in nats, summed over the vector.

        Between Cauchy distributions it is log(((g + h)^2 + (m - n)^2) / (4 g h)) for locations m, n and scales g, h
        (Chyzak & Nielsen 2019, arXiv:1905.10965).
        """
        dtype = at_least_float32(self.rho)
        rho, shift = self.rho.to(dtype), self.shift.to(dtype)
        scale, log_scale = softplus(rho), log_softplus(rho)
        if self.family == "gaussian":
            prior_scale = torch.full_like(scale, self.prior_scale)
            return gaussian_kl(shift, scale, torch.zeros_like(shift), prior_scale, log_scale).sum()
        squares = (scale + self.prior_scale).square() + shift.square()
        return (squares.log() - log_scale - math.log(4 * self.prior_scale)).sum()


class Rank1Weight(Posterior):
    """w = mu * (r s'): ``mu`` is a parameter, and r over outputs and s over inputs are random.

    Dusenberry et al. 2020 (arXiv:2005.07186), section 3. The KL is that of r and s: mu is a point. Weights of one
    output share its r, those of one input its s. Products of Cauchy variables have neither mean nor variance; the
    ``mean`` of such a weight is its value at the locations of r and s.

    Args:
        mu: initial weights.
        outputs: r.
        inputs: s.
        over_rows: reshapes r so that it broadcasts to the weights.
        over_weights: likewise s.
    """

    is_factorised = False
    is_symmetric = False

    def __init__(
        self,
        mu: Tensor,
        outputs: RandomFactor,
        inputs: RandomFactor,
        over_rows: Callable[[Tensor], Tensor],
        over_weights: Callable[[Tensor], Tensor],
    ):
        super().__init__()
        self.mu = nn.Parameter(mu)
        self.outputs, self.inputs = outputs, inputs
        self.over_rows, self.over_weights = over_rows, over_weights
        self.has_variance = outputs.family == "gaussian"

    @property
    def width_parameters(self) -> tuple[str, ...]:
        return ("outputs.rho", "inputs.rho")

    def _times(self, outputs: Tensor, inputs: Tensor) -> Tensor:
        return self.over_rows(outputs) * self.over_weights(inputs)

    @property
    def mean(self) -> Tensor:
        return self.mu * self._times(self.outputs.location, self.inputs.location)

    @property
    def variance(self) -> Tensor:
        if not self.has_variance:
            raise ValueError("family must be gaussian for variances and signal-to-noise ratios of weights, got cauchy.")
        # Not E[(r s')^2] - E[r s']^2, of which float32 leaves nothing where the factors are narrow.
        outputs, inputs = self.outputs, self.inputs
        of_inputs = self._times(outputs.location.square(), inputs.scale.square())
        of_outputs = self._times(outputs.scale.square(), inputs.second_moment())
        return self.mu.square() * (of_inputs + of_outputs)

    def sample(self) -> Tensor:
        return self.mu * self._times(self.outputs.sample(), self.inputs.sample())

    def kl(self) -> Tensor:
        return self.outputs.kl() + self.inputs.kl()

    def extra_repr(self) -> str:
        return f"{shape_text(self.mu)}, {self.outputs.family}"
