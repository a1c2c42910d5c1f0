"""The layers and the wrapper of PyTorch-BayesianCNN's README under their own names, built from ours.

A network of this module returns ``(logits, kl)``; nothing outside it does. For the differences in meaning (direction of
the KL, eval mode, flattening) see docs/differences.md.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bnn_lightning.core.layers import BayesianLayer
from bnn_lightning.core.methods import BBB, LRT, GaussianMethod
from bnn_lightning.core.whole_network import kl

Priors = Mapping[str, Any]


class ModuleWrapper(nn.Module):
    """Runs its child modules one after another and returns ``(output, kl)``; a subclass writes no ``forward``.

    ``kl`` is KL(posterior || prior) summed over every Bayesian layer inside, nested wrappers included.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for module in self._modules.values():  # children() would leave out a module's second place
            if module is None:
                continue
            x = module(x)[0] if isinstance(module, ModuleWrapper) else module(x)
        return x, kl(self)


class FlattenLayer(nn.Module):
    """``(batch, ...)`` to ``(batch, num_features)``.

    Raises:
        ValueError: unless each image has ``num_features`` numbers; regrouping rows would mix images.
    """

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        if flat.shape[1] != self.num_features:
            raise ValueError(
                f"num_features must be what each image has here, {flat.shape[1]} (shape {tuple(x.shape)}), "
                f"got {self.num_features}."
            )
        return flat

    def extra_repr(self) -> str:
        return str(self.num_features)


class BBBLinear(BayesianLayer):
    """A linear layer under Bayes by backprop.

    Args:
        in_features, out_features, bias: as in ``nn.Linear``.
        priors: see :meth:`bnn_lightning.core.methods.GaussianMethod.from_priors`; None takes the documented defaults.
    """

    family: type[GaussianMethod] = BBB

    def __init__(self, in_features: int, out_features: int, bias: bool = True, priors: Priors | None = None):
        super().__init__(nn.Linear(in_features, out_features, bias), self.family.from_priors(priors))


class BBBConv2d(BayesianLayer):
    """A 2d convolution under Bayes by backprop.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, bias, groups: as in ``nn.Conv2d``.
        priors: see :meth:`bnn_lightning.core.methods.GaussianMethod.from_priors`; None takes the documented defaults.

    Raises:
        TypeError: for ``strides``, which older examples write for ``stride``.
    """

    family: type[GaussianMethod] = BBB

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
        priors: Priors | None = None,
        groups: int = 1,
        **unknown: Any,
    ):
        if unknown:
            name = next(iter(unknown))
            cure = "; write stride." if name == "strides" else "."
            raise TypeError(f"{type(self).__name__} has no argument {name}{cure}")
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        super().__init__(conv, self.family.from_priors(priors))


class BBB_LRT_Linear(BBBLinear):
    """A linear layer under local reparameterisation."""

    family = LRT


class BBB_LRT_Conv2d(BBBConv2d):
    """A 2d convolution under local reparameterisation."""

    family = LRT


def load_reference_state_dict(net: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Loads what PyTorch-BayesianCNN saved: ``W_mu``, ``W_rho``, ``bias_mu``, ``bias_rho`` of each layer.

    Other entries, such as batch norm's, keep their names. Priors are not in such files and stay as they are.

    Raises:
        RuntimeError: torch's own, when names or shapes do not match.
    """
    renamed = {
        re.sub(r"(^|\.)(W|bias)_(mu|rho)$", lambda key: f"{key[1]}{_PARTS[key[2]]}.{key[3]}", name): value
        for name, value in state_dict.items()
    }
    priors = {name: value for name, value in net.state_dict().items() if name.endswith((".prior_mu", ".prior_sigma"))}
    net.load_state_dict(priors | renamed)


_PARTS = {"W": "weight", "bias": "bias"}
