"""LearntNoise: parameters of the likelihood that are the same for every input, as outputs of the network."""

import copy

import torch
from torch import Tensor, nn

from bnn_lightning.core.moments import Moments, Rule, moment_rule
from bnn_lightning.core.ops import kind_of, layer_kinds

LEARNT_NOISE = "learnt_noise"
"""Its name in the network."""


class LearntNoise(nn.Module):
    """Appends learnt constants to outputs: ``(batch, outputs)`` becomes ``(batch, outputs + constants)``.

    So a network's outputs are all that a likelihood needs, and what it learns beside the network's own weights is in
    the state_dict, the optimiser, every sample and every member of an ensemble like any other parameter.

    Args:
        constants: their initial values, ``(constants,)``.
        by_hook: whether a hook of the network appends them: then this module leaves outputs as they are, since a
            network with a forward pass of its own may call all of its parts, or none.
    """

    width_parameters = ("constants",)
    """Like those of posteriors they have no weight decay, and the learning rate that ``rho_lr_factor`` asks for."""

    def __init__(self, constants: Tensor, by_hook: bool = False):
        super().__init__()
        self.constants = nn.Parameter(constants)
        self.by_hook = by_hook

    def forward(self, outputs: Tensor) -> Tensor:
        return outputs if self.by_hook else self.appended(outputs)

    def appended(self, outputs: Tensor) -> Tensor:
        """Outputs with the constants behind them."""
        # Not len(outputs), which would fix the size of the batch in an exported graph. Of outputs in half precision
        # float32 is made, in which steps of the constants are not rounded away.
        return torch.cat([outputs, self.constants.expand(outputs.shape[0], -1)], -1)


class _Appended(nn.Module):
    """The moment rule of :class:`LearntNoise`: constants have the variance 0."""

    constants: Tensor

    def __init__(self, constants: Tensor):
        super().__init__()
        self.register_buffer("constants", constants.detach().clone(), persistent=False)

    def forward(self, x: Moments) -> Moments:
        constants = self.constants.to(x.mean.dtype).expand(x.mean.shape[0], -1)
        return Moments(torch.cat([x.mean, constants], -1), torch.cat([x.variance, torch.zeros_like(constants)], -1))


@moment_rule(LearntNoise)
def _rule_of_noise(layer: LearntNoise) -> Rule:
    return _Appended(layer.constants)


def with_learnt_noise(net: nn.Module, constants: Tensor) -> nn.Module:
    """A copy of ``net`` that ends with :class:`LearntNoise`, unless it does so already; names of parameters stay.

    A net that is itself a layer, such as ``nn.Linear``, becomes the first part of a chain.
    """
    if LEARNT_NOISE in dict(net.named_children()):
        return net
    net = copy.deepcopy(net)
    if kind_of(net, layer_kinds()) is not None:  # a random layer takes the place of one as a whole
        net = nn.Sequential(net)
    device = next((parameter.device for parameter in net.parameters()), None)
    by_hook = type(net).forward is not nn.Sequential.forward  # a chain runs its last part by itself
    net.add_module(LEARNT_NOISE, LearntNoise(constants.to(device), by_hook))
    if by_hook:
        net.register_forward_hook(_append_noise)
    return net


def _append_noise(net: nn.Module, _: object, outputs: Tensor) -> Tensor:
    noise = net.get_submodule(LEARNT_NOISE)
    assert isinstance(noise, LearntNoise)
    return noise.appended(outputs)
