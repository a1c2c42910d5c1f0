"""DropConnect: each weight is dropped by itself, for the whole batch (Wan et al. 2013)."""

from dataclasses import dataclass

from torch import Tensor

from bnn_lightning import FixedAlpha, Method, Multiplicative, Op, Point, Posterior


@dataclass(frozen=True)
class DropConnect(Method):
    """y = op(x, theta * z / (1 - p)) with z ~ Bernoulli(1 - p) for each weight.

    Args:
        p: the rate, from 0 to below 1.
    """

    objective = "likelihood"  # no KL

    p: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.p < 1:
            raise ValueError(f"p must be a dropout rate from 0 to below 1, got {self.p}.")

    def weight(self, init: Tensor, op: Op) -> Posterior:
        alpha = FixedAlpha(init.new_full((1,) * init.dim(), self.p / (1 - self.p)))
        return Multiplicative(init.detach().clone(), alpha, bernoulli=True)

    def bias(self, init: Tensor) -> Posterior:
        return Point(init.detach().clone())

    def forward(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> Tensor:
        return op(x, weight.sample(), None if bias is None else bias.sample())
