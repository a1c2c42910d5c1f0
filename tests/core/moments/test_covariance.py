"""Covariances of a network's outputs: exact where they can be, else near those of draws."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import vmap

from bnn_lightning import (
    BBB,
    LRT,
    LeNet,
    MCDropout,
    MomentNetwork,
    Rank1,
    bayesianize,
)
from bnn_lightning.core.kernels.memory import channels_last
from bnn_lightning.inference import VBLL, Laplace

WIDE = {"rho_init": (-1.0, 0.1)}


def test_covariances_of_a_linear_network_are_exact():
    # Var h = D + J diag(v) J^T as above; Cov(y_k, y_l) = sum_i M2_ki M2_li v_i for k != l, here through three layers.
    layers = [nn.Linear(4, 5), nn.Identity(), nn.Linear(5, 6), nn.Linear(6, 3)]
    net = bayesianize(nn.Sequential(*layers).double(), BBB(rho_init=(-2.0, 0.1)))
    moments, x = MomentNetwork(net), torch.randn(2, 4, dtype=torch.float64)
    assert moments.has_covariance
    mean, covariance = moments.covariance(x)
    with torch.no_grad():
        y = vmap(lambda row: net(row), randomness="different")(x.expand(100_000, 2, 4))
    torch.testing.assert_close(y.mean(0), mean, rtol=0, atol=0.05)
    found = torch.stack([torch.cov(y[:, image].T) for image in range(2)])
    torch.testing.assert_close(found, covariance, rtol=0.05, atol=0.02 * covariance.abs().max().item())
    torch.testing.assert_close(moments(x)[1], covariance.diagonal(dim1=1, dim2=2))


class Calls(nn.Module):
    """Functions instead of modules between linear layers, which start with known inputs."""

    def __init__(self, act):
        super().__init__()
        self.act, self.fc1, self.fc2, self.fc3 = act, nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.fc3(self.act(self.fc2(self.act(self.fc1(x)))))


@pytest.mark.parametrize("method", [LRT(rho_init=(-2.0, 0.1)), MCDropout(0.1), Rank1(scale_init=0.2)], ids=repr)
@pytest.mark.parametrize(
    "act",
    [
        *(torch.relu, nn.LeakyReLU(0.2), nn.functional.softplus, nn.SiLU()),
        partial(nn.functional.gelu, approximate="tanh"),
    ],
    ids=["relu", "leaky relu", "softplus", "silu", "gelu"],
)
def test_covariances_behind_activations_are_near_those_of_draws(act, method):
    net = bayesianize(Calls(act).double(), method)
    x, draws = torch.randn(2, 6, dtype=torch.float64), 30_000
    with torch.no_grad():
        y = vmap(lambda rows: net(rows), randomness="different")(x.expand(draws, 2, 6))
    mean, covariance = MomentNetwork(net).covariance(x)
    assert len(MomentNetwork(net).end.stages) >= 5
    true = torch.stack([torch.cov(y[:, image].T) for image in range(2)])
    std = true.diagonal(dim1=1, dim2=2).sqrt()
    # A kink behind eight units with masks, whose sum is no Gaussian, is the worst of these.
    assert ((mean - y.mean(0)).abs() < 0.25 * std).all()
    assert ((covariance - true).abs() < 0.4 * std[:, :, None] * std[:, None]).all()


class Covariance(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.moments = MomentNetwork(net)

    def forward(self, x):
        return self.moments.covariance(x)


def test_covariances_can_be_exported():
    net = Covariance(bayesianize(LeNet(), LRT(**WIDE)))
    x = channels_last(torch.randn(6, 1, 32, 32))
    program = torch.export.export(net, (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for found, expected in zip(program.module()(x), net(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("function", "module"),
    [
        (lambda x: F.leaky_relu(x, 0.3), nn.LeakyReLU(0.3)),
        (lambda x: F.dropout(x.relu(), training=False), nn.ReLU()),
        (lambda x: x.sigmoid(), nn.Sigmoid()),
        (lambda x: x.tanh(), nn.Tanh()),
    ],
)
def test_covariances_go_through_functions_as_through_modules(function, module):
    class Calling(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.fc2(function(self.fc1(x)))

    net = bayesianize(Calling().double(), BBB(**WIDE))
    chain = nn.Sequential(net.fc1, module, net.fc2)
    x = torch.randn(6, 4, dtype=torch.float64)
    found, expected = (MomentNetwork(each).covariance(x)[1] for each in (net, chain))
    torch.testing.assert_close(found, expected)
    assert found.triu(1).abs().max() > 0


def covariance_of(kind, weight, bias, phi):
    """Phi~^T Sigma phi~ for each pair of outputs, from the matrices that a joint posterior is made of, in numpy."""
    w, b = (
        {name: value.detach().numpy() for name, value in (*part.named_parameters(), *part.named_buffers())}
        for part in (weight, bias)
    )
    ones = np.concatenate([phi.numpy(), np.ones((len(phi), 1))], 1)
    outputs = len(w["mu"])
    if kind == "full":
        rows = np.concatenate([w["factor"], b["factor"][:, None]], 1)  # (outputs, features + 1, size)
        sigma = np.einsum("kis,ljs->kilj", rows, rows)
    elif kind == "kron":
        right = np.concatenate([w["right"], b["right"]])
        sigma = np.einsum("kp,pc,ic,lp,jc->kilj", w["left"], w["scales"] ** 2, right, w["left"], right)
    else:
        sigma = np.zeros((outputs, ones.shape[1], outputs, ones.shape[1]))
        for k in range(outputs):
            factor = np.zeros((ones.shape[1],) * 2)
            factor[:-1, :-1] = np.tril(w["lower"][k], -1) + np.diag(np.log1p(np.exp(w["rho"][k])))
            factor[-1] = [*b["lower"][k], np.log1p(np.exp(b["rho"][k]))]
            sigma[k, :, k] = factor @ factor.T
            sigma[k, -1, k, -1] += np.log1p(np.exp(b["noise_rho"][k])) ** 2
    return np.einsum("bi,kilj,bj->bkl", ones, sigma, ones)


@pytest.mark.parametrize("kind", ["full", "kron", "dense"])
def test_a_joint_posterior_of_the_last_layer_is_exact(kind):
    backbone = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    inference = VBLL(covariance="dense") if kind == "dense" else Laplace(structure=kind)
    net = inference.prepare(backbone, None, "*").double()
    weight, bias = net[2].weight, net[2].bias
    with torch.no_grad():
        for part in (weight, bias):
            for name, value in (*part.named_parameters(), *part.named_buffers()):
                if name != "mu":
                    value.normal_()
    x = torch.randn(6, 4, dtype=torch.float64)
    moments = MomentNetwork(net)
    mean, covariance = moments.covariance(x)
    with torch.no_grad():
        phi = net[:2](x)
        expected = torch.from_numpy(covariance_of(kind, weight, bias, phi))
        torch.testing.assert_close(mean, phi @ weight.mu.T + bias.mu)
    torch.testing.assert_close(covariance, expected)
    torch.testing.assert_close(moments(x)[1], expected.diagonal(dim1=1, dim2=2))
    behind = nn.Linear(3, 2).double()
    passed_on = MomentNetwork(nn.Sequential(net, nn.Identity(), behind)).covariance(x)[1]
    torch.testing.assert_close(passed_on, behind.weight.detach() @ expected @ behind.weight.detach().T)
    assert (covariance.diagonal(dim1=1, dim2=2) / moments.end.stages["net_2"].marginals(phi)[1] - 1).abs().max() > 0.1
