"""Layers and module wrapper with the names and arguments of PyTorch-BayesianCNN's README, built from ours.

Networks of this module return ``(logits, kl)``; no others do. For differences in behaviour (direction of the KL, eval
mode, flattening) see docs/differences.md.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bnn_lightning.core.conversion import unwrapped_names
from bnn_lightning.core.layers import BayesianLayer
from bnn_lightning.core.methods import BBB, LRT, GaussianMethod
from bnn_lightning.core.whole_network import kl

Priors = Mapping[str, Any]

_TENSOR_NAMES = {"W": "weight", "bias": "bias"}  # PyTorch-BayesianCNN's names of tensors, and ours


class ModuleWrapper(nn.Module):
    """Runs its child modules in order and returns ``(output, kl)``; subclasses need no ``forward``.

    ``kl`` is KL(posterior || prior) in nats, a scalar: the sum over all Bayesian layers, those of nested wrappers
    included.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for module in self._modules.values():  # children() would skip a repeated module
            if module is None:
                continue
            x = module(x)[0] if isinstance(module, ModuleWrapper) else module(x)
        return x, kl(self)


class FlattenLayer(nn.Module):
    """Flattens ``(batch, ...)`` to ``(batch, num_features)``.

    Args:
        num_features: number of elements of each image.

    Raises:
        ValueError: when an image has another number of elements; PyTorch-BayesianCNN's ``view(-1, num_features)`` would
            mix the images of a batch.
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
    """A linear layer under Bayes by backprop, ``(..., in_features)`` to ``(..., out_features)``.

    Args:
        in_features, out_features, bias: as in ``nn.Linear``.
        priors: see :meth:`bnn_lightning.GaussianMethod.from_priors`; None takes the defaults given there.

    Raises:
        ValueError: when ``priors`` has an unknown key.
    """

    method_class: type[GaussianMethod] = BBB

    def __init__(self, in_features: int, out_features: int, bias: bool = True, priors: Priors | None = None):
        super().__init__(nn.Linear(in_features, out_features, bias), self.method_class.from_priors(priors))


class BBBConv2d(BayesianLayer):
    """A 2d convolution under Bayes by backprop, of images ``(batch, channels, height, width)``.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, bias, groups: as in ``nn.Conv2d``.
        priors: see :meth:`bnn_lightning.GaussianMethod.from_priors`; None takes the defaults given there.

    Raises:
        TypeError: for other arguments, such as ``strides`` for ``stride`` in older examples.
        ValueError: when ``priors`` has an unknown key.
    """

    method_class: type[GaussianMethod] = BBB

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
            advice = "; write stride." if name == "strides" else "."
            raise TypeError(f"{type(self).__name__} has no argument {name}{advice}")
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        super().__init__(conv, self.method_class.from_priors(priors))


class BBB_LRT_Linear(BBBLinear):
    """A linear layer under local reparameterisation; arguments are those of :class:`BBBLinear`."""

    method_class = LRT


class BBB_LRT_Conv2d(BBBConv2d):
    """A 2d convolution under local reparameterisation; arguments are those of :class:`BBBConv2d`."""

    method_class = LRT


def load_reference_state_dict(net: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Loads a state_dict of PyTorch-BayesianCNN into ``net``, in place.

    It has ``W_mu``, ``W_rho``, ``bias_mu`` and ``bias_rho`` of each layer, which become ``weight.mu`` and so on; other
    entries, such as those of batch norm, keep their names. It has no priors: those of ``net`` are not changed.

    Args:
        net: the same network in the layers of this module.
        state_dict: as PyTorch-BayesianCNN saved it, also from a DataParallel, whose names begin with ``module.``.

    Raises:
        RuntimeError: by torch, when names or shapes do not match.
    """
    renamed = {
        re.sub(r"(^|\.)(W|bias)_(mu|rho)$", lambda key: f"{key[1]}{_TENSOR_NAMES[key[2]]}.{key[3]}", name): value
        for name, value in state_dict.items()
    }
    priors = {name: value for name, value in net.state_dict().items() if name.endswith((".prior_mu", ".prior_sigma"))}
    net.load_state_dict(priors | unwrapped_names(renamed, net.state_dict()))
