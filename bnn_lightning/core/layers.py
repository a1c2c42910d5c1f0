"""BayesianLayer, the one layer class whose weight and bias are random."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from bnn_lightning.core.kernels.compiling import compiling
from bnn_lightning.core.kernels.local_noise import with_noise
from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.ops import op_of


class BayesianLayer(nn.Module):
    """A plain layer whose weight and bias are random under a method: the only Bayesian layer class there is.

    ``BayesianLayer(nn.Conv2d(3, 16, 5), LRT())``. ``weight`` and ``bias`` are posteriors, so parameters are named
    ``weight.mu``, ``weight.rho``, ``bias.mu`` and so on.

    ``sampling`` decides whether a forward pass draws noise (the default) or uses the mean weights. It has nothing to do
    with ``train()`` and ``eval()``, which belong to batch norm and dropout; set it for a network with :func:`sampling`.

    Args:
        layer: of a kind that can be random, such as Linear, Conv1d or Conv2d; its values are the first means.
        method: how they are random.
        channels: for a linear layer that reads flattened images, how many channels they had; null takes each feature
            for a channel.

    Raises:
        TypeError: for a layer that is not exactly of such a kind.
    """

    def __init__(self, layer: Any, method: Method, channels: int | None = None):
        super().__init__()
        self.op: Any = op_of(layer, channels)
        self.method = method
        self.weight = method.weight(layer.weight, self.op)
        self.bias = None if layer.bias is None else method.bias(layer.bias)
        self.sampling = True
        self.compiles = False
        self.train(layer.training)
        self.kind = type(layer).__name__
        self._settings = layer.extra_repr()

    def forward(self, x: Tensor) -> Tensor:
        if self.sampling:
            with compiling(self.compiles):
                return self.method.forward(self.op, x, self.weight, self.bias)
        return self.op(x, self.weight.mean, None if self.bias is None else self.bias.mean)

    def output_sampler(self, x: Tensor) -> Callable[[], Tensor]:
        """Returns a function; each call draws one output sample for ``x``. Mean and variance are computed once."""
        with compiling(self.compiles):
            moments = self.method.moments(self.op, x, self.weight, self.bias) if self.sampling else None

        def sample() -> Tensor:
            if moments is None:
                return self(x)
            with compiling(self.compiles):
                return with_noise(*moments)

        return sample

    def extra_repr(self) -> str:
        return f"{self.kind}({self._settings}), {self.method}"
