"""A network with the Bayesian layers of other libraries and of the textbook; each function also returns its KL."""

import copy
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn


def replaced(net, conv, linear):
    """A copy of the sequential ``net`` with ``conv(layer)`` and ``linear(layer)`` in place of its layers."""
    net = copy.deepcopy(net)
    for name, layer in list(net.named_children()):
        if isinstance(layer, nn.Conv2d):
            setattr(net, name, conv(layer))
        elif isinstance(layer, nn.Linear):
            setattr(net, name, linear(layer))
    return net


def rebuilt(net, conv, linear):
    """The same for layers whose arguments are those of torch's layers."""
    return replaced(
        net,
        lambda old: conv(old.in_channels, old.out_channels, old.kernel_size, stride=old.stride, padding=old.padding),
        lambda old: linear(old.in_features, old.out_features),
    )


def torchbnn(net):
    import torchbnn

    bayesian = rebuilt(net, partial(torchbnn.BayesConv2d, 0, 0.1), partial(torchbnn.BayesLinear, 0, 0.1))
    loss = torchbnn.BKLLoss(reduction="sum")
    return bayesian, lambda: loss(bayesian)


def bayesian_torch(net, kind="Reparameterization"):
    from bayesian_torch.models.dnn_to_bnn import dnn_to_bnn, get_kl_loss

    bayesian = copy.deepcopy(net)
    prior = {"prior_mu": 0.0, "prior_sigma": 0.1, "posterior_mu_init": 0.0, "posterior_rho_init": -5.0}
    dnn_to_bnn(bayesian, prior | {"type": kind, "moped_enable": False, "moped_delta": 0.5})
    return bayesian, lambda: get_kl_loss(bayesian)


def blitz(net):
    from blitz.losses import kl_divergence_from_nn
    from blitz.modules import BayesianConv2d, BayesianLinear

    bayesian = rebuilt(net, BayesianConv2d, BayesianLinear)
    return bayesian, lambda: kl_divergence_from_nn(bayesian)


def torch_uncertainty(net):
    from torch_uncertainty.layers.bayesian import BayesConv2d, BayesLinear
    from torch_uncertainty.losses import KLDiv

    bayesian = rebuilt(net, BayesConv2d, BayesLinear)
    return bayesian, KLDiv(bayesian)


def uq_box(net, kind="reparameterization"):
    from lightning_uq_box.models.bnn_layers import Conv2dVariational, LinearVariational
    from lightning_uq_box.models.bnn_layers.bnn_utils import get_kl_loss

    def conv(*sizes, stride, padding):
        return Conv2dVariational(*sizes, stride[0], padding[0], prior_sigma=0.1, layer_type=kind)

    bayesian = rebuilt(net, conv, partial(LinearVariational, prior_sigma=0.1, layer_type=kind))
    return bayesian, lambda: get_kl_loss(bayesian)


class TextbookLRT(nn.Module):
    """Local reparameterisation written as its formula, without optimisation: two passes, one sample."""

    def __init__(self, old):
        super().__init__()
        for name, value in (("weight", old.weight), ("bias", old.bias)):
            self.register_parameter(f"{name}_mu", nn.Parameter(value.detach().clone()))
            self.register_parameter(f"{name}_rho", nn.Parameter(torch.full_like(value, -5.0)))
        self.geometry = (old.stride, old.padding) if isinstance(old, nn.Conv2d) else ()
        self.op = F.conv2d if self.geometry else F.linear

    def forward(self, x):
        sigmas = [torch.log1p(torch.exp(rho)) for rho in (self.weight_rho, self.bias_rho)]
        mean = self.op(x, self.weight_mu, self.bias_mu, *self.geometry)
        std = torch.sqrt(1e-16 + self.op(x**2, *(sigma**2 for sigma in sigmas), *self.geometry))
        return mean + std * torch.randn_like(mean)

    def kl(self, prior_sigma=0.1):
        terms = []
        for mu, rho in ((self.weight_mu, self.weight_rho), (self.bias_mu, self.bias_rho)):
            sigma = torch.log1p(torch.exp(rho))
            ratio = (sigma**2 + mu**2) / prior_sigma**2
            terms.append(0.5 * (2 * torch.log(prior_sigma / sigma) - 1 + ratio).sum())
        return sum(terms)


def textbook_lrt(net):
    bayesian = replaced(net, TextbookLRT, TextbookLRT)
    return bayesian, lambda: sum(layer.kl() for layer in bayesian if isinstance(layer, TextbookLRT))
