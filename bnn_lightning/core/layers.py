"""BayesianLayer, the one layer class whose weight and bias are random."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from bnn_lightning.core.kernels.compiling import compiling
from bnn_lightning.core.kernels.local_noise import with_noise
from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.ops import OPS


class BayesianLayer(nn.Module):
    """A plain layer whose weight and bias are random under a method: the only Bayesian layer class there is.

    ``BayesianLayer(nn.Conv2d(3, 16, 5), LRT())``. ``weight`` and ``bias`` are posteriors, so parameters are named
    ``weight.mu``, ``weight.rho``, ``bias.mu`` and so on.

    ``sampling`` decides whether a forward pass draws noise (the default) or uses the mean weights. It has nothing to do
    with ``train()`` and ``eval()``, which belong to batch norm and dropout; set it for a network with :func:`sampling`.

    Args:
        layer: Linear, Conv1d or Conv2d; its values are the first means.
        method: how they are random.
        channels: for a linear layer that reads flattened images, how many channels they had; null takes each feature
            for a channel.

    Raises:
        TypeError: for a layer that is not exactly Linear, Conv1d or Conv2d.
    """

    def __init__(self, layer: Any, method: Method, channels: int | None = None):
        super().__init__()
        if type(layer) not in OPS:
            known = ", ".join(kind.__name__ for kind in OPS)
            raise TypeError(f"layer must be one of {known}, got {type(layer).__name__}.")
        self.method = method
        self.op: Any = OPS[type(layer)](layer, channels)
        self.weight = method.weight(layer.weight, self.op)
        self.bias = None if layer.bias is None else method.bias(layer.bias)
        self.sampling = True
        self.compiles = False
        self.train(layer.training)
        self._plain = f"{type(layer).__name__}({layer.extra_repr()})"

    def forward(self, x: Tensor) -> Tensor:
        if self.sampling:
            with compiling(self.compiles):
                return self.method.forward(self.op, x, self.weight, self.bias)
        return self.op(x, self.weight.mean, None if self.bias is None else self.bias.mean)

    def sampler(self, x: Tensor) -> Callable[[], Tensor]:
        """What gives a sample of the output for ``x`` at each call; what all samples share is computed once."""
        with compiling(self.compiles):
            found = self.method.moments(self.op, x, self.weight, self.bias) if self.sampling else None

        def sample() -> Tensor:
            if found is None:
                return self(x)
            with compiling(self.compiles):
                return with_noise(*found)

        return sample

    def extra_repr(self) -> str:
        return f"{self._plain}, {self.method}"
