"""BayesianLayer, the one layer class whose weight and bias are random tensors."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from bnn_lightning.core.kernels.compiling import compiling
from bnn_lightning.core.kernels.local_noise import with_noise
from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.ops import op_of


class BayesianLayer(nn.Module):
    """A plain layer whose weight and bias are random under a method: ``BayesianLayer(nn.Conv2d(3, 16, 5), LRT())``.

    ``weight`` and ``bias`` are posteriors, so the parameters are named ``weight.mu``, ``weight.rho``, ``bias.mu`` and
    so on. Inputs and outputs have the shapes of the plain layer.

    ``sampling`` says whether a forward pass draws noise (True, the default) or uses the mean weights (False). It is
    independent of ``train()`` and ``eval()``, which set the mode of batch norm and dropout. To set it for a whole
    network use :func:`~bnn_lightning.core.whole_network.sampling`. ``compiles`` says whether noise is computed by
    compiled code.

    Args:
        layer: the plain layer, of a kind registered by :func:`~bnn_lightning.core.ops.layer_kind`, such as Linear,
            Conv1d or Conv2d. The method forms the posteriors from its values.
        method: how weight and bias are random.
        channels: for a linear layer behind a Flatten, the number of channels before the flattening; None treats each
            input feature as a channel.

    Raises:
        TypeError: when the class of ``layer`` is not exactly a registered one.
        ValueError: when ``channels`` does not divide the input features.
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
        """Returns a function; each call draws one output sample for ``x``.

        Where the method gives the moments of the outputs, they are computed once for all calls.
        """
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
