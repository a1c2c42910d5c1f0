"""Networks whose weights are mostly zero."""

import torch
from torch import nn


def thinned(net, kept=0.05):
    """Most weights 0, and of some units all incoming or all outgoing ones."""
    generator = torch.Generator().manual_seed(1)
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)]
    with torch.no_grad():
        for layer in layers:
            layer.weight *= torch.rand(layer.weight.shape, generator=generator) < kept
            if layer.bias is not None:
                layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator))
        for layer in layers[:-1]:
            layer.weight[::4] = 0  # constants: positive and negative ones
        for layer in layers[1:]:
            layer.weight[:, 1::4] = 0
    return net.double().eval()
