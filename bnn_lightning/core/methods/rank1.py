"""Rank1: weights that are trained, times random factors for each output and each input."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from bnn_lightning.core.kernels.softplus import inverse_softplus
from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.ops.base import Op
from bnn_lightning.core.posteriors import Point, Posterior, Rank1Weight
from bnn_lightning.core.posteriors.rank1 import Family, RandomFactor
from bnn_lightning.core.settings import check_positive, check_words


@dataclass(frozen=True)
class Rank1(Method):
    """Rank-1 factors: w = W * (r s') with random r over outputs and s over inputs, y_n = op(x_n * s_n, W) * r_n + b.

    Dusenberry et al. 2020 (arXiv:2005.07186), section 3, with one component in the posterior; the mixture of the paper
    is an ensemble. Each example has factors of its own, so that its output is that of one weight draw, independent of
    all others. W and b are points; the KL is that of r and s, to a prior of the same family around 1.

    nll + KL/N bounds -log p(data | W, b) / N, where W and b are fitted as hyper-parameters and pay no KL: compare it
    among runs of this method, not with methods whose weights are random. Under the Cauchy family it is no bound: the
    outputs are linear in variables that have no mean, so that the expected nll is infinite, and what is logged is the
    mean of the draws that were made.

    Args:
        family: gaussian or cauchy, of factors and prior.
        prior_scale: scale of the prior over each factor: the standard deviation of a Gaussian, half the width at half
            the height of a Cauchy density.
        scale_init: initial scale of each factor; null is 0.05, or 0.001 under the Cauchy family, whose noise does not
            average out over the inputs of a layer: with 0.05 a LeNet does not learn.
    """

    family: Family = "gaussian"
    prior_scale: float = 0.1
    scale_init: float | None = None

    def __post_init__(self) -> None:
        check_words(self)
        check_positive("prior_scale", self.prior_scale, "scale such as 0.1")
        check_positive("scale_init", self.scale_init, "scale such as 0.1")

    @property
    def _scale_init(self) -> float:
        if self.scale_init is not None:
            return self.scale_init
        return 0.05 if self.family == "gaussian" else 0.001

    @property
    def objective(self) -> Literal["elbo", "regularised"]:
        return "elbo" if self.family == "gaussian" else "regularised"

    @property
    def examples_are_independent(self) -> bool:
        return True

    def weight(self, init: Tensor, op: Op) -> Rank1Weight:
        outputs, inputs = self._factor(init, op.out_features), self._factor(init, op.in_features)
        return Rank1Weight(init.detach().clone(), outputs, inputs, op.over_rows, op.over_weights)

    def _factor(self, init: Tensor, count: int) -> RandomFactor:
        rho = inverse_softplus(init.new_full((count,), self._scale_init))
        return RandomFactor(rho, self.family, self.prior_scale)

    def bias(self, init: Tensor) -> Point:
        return Point(init.detach().clone())

    def forward(self, op: Op, x: Tensor, weight: Any, bias: Posterior | None) -> Tensor:
        inputs = weight.inputs.sample(op.over_inputs, op.example_shape(x))
        y = op(x * inputs.to(x.dtype), weight.mu, None)
        y = y * weight.outputs.sample(op.over_outputs, op.example_shape(y)).to(y.dtype)
        return y if bias is None else y + op.over_outputs(bias.mean).to(y.dtype)
