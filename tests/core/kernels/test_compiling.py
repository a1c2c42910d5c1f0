"""Compiled code: the loops that inductor makes are those of the formulas, given the same noise."""

import pytest
import torch
from torch import nn

from bnn_lightning import BBB, LRT, Flipout, GaussianS, Sparse, ThreeConvThreeFC, bayesianize, kl
from bnn_lightning.core.kernels import local_noise as local
from bnn_lightning.core.kernels.compiling import check_compiler, compiling
from bnn_lightning.core.kernels.memory import channels_last
from bnn_lightning.core.kernels.noise import draw_key, philox_normal
from bnn_lightning.core.kernels.softplus import softplus
from bnn_lightning.core.whole_network import bayesian_layers


@pytest.mark.slow
def test_compiled_local_reparameterisation_is_the_formula():
    for shape in ((6, 5, 4, 4), (50, 10), (3, 7), (1,), (0, 4)):
        mean, variance = torch.randn(shape, requires_grad=True), torch.rand(shape, requires_grad=True)
        torch.manual_seed(1)
        with compiling(True):
            y = local.with_noise(1 * mean, 1 * variance)  # in a network they are no leaves
        torch.manual_seed(1)
        torch.rand(())  # what with_noise asks vmap with
        count = mean.numel()
        padded = count + (-count % 8 or (0 if count else 8))
        zeta = philox_normal(padded // 4, draw_key(mean))[:count].view(shape)
        std = (variance + 1e-16).sqrt()
        torch.testing.assert_close(y, mean + std * zeta, rtol=2e-6, atol=2e-6)
        upstream = torch.randn(shape)
        gradients = torch.autograd.grad(y, (mean, variance), upstream)
        expected = torch.autograd.grad(mean + std * zeta, (mean, variance), upstream)
        torch.testing.assert_close(gradients, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_compiled_and_eager_kl_are_equal():
    torch.manual_seed(0)
    nets = [bayesianize(ThreeConvThreeFC(), LRT(rho_init=(-3.0, 2.0))) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    nets[1].to(memory_format=torch.channels_last)
    for layer in bayesian_layers(nets[1]):
        layer.compiles = True
    values = [kl(net) for net in nets]
    torch.testing.assert_close(*values, rtol=1e-5, atol=0)
    for value in values:
        value.backward()
    for parameters in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(*(parameter.grad for parameter in parameters), rtol=1e-4, atol=1e-5)


def test_layers_that_compile_can_be_compiled_by_someone_else():
    net = bayesianize(nn.Sequential(nn.Linear(4, 3)), LRT())
    for layer in bayesian_layers(net):
        layer.compiles = True
    torch._dynamo.reset()

    @torch.compile(backend="eager", fullgraph=True)
    def loss(x):
        return net(x).square().sum(), kl(net)

    torch.testing.assert_close(loss(torch.randn(2, 4))[1], kl(net))


@pytest.mark.parametrize("compiled", [False, True])
def test_softplus_is_exact_up_to_rounding(compiled):
    # inductor's atanh is far off for small numbers, and rho is small.
    x = torch.cat([torch.linspace(-100, 100, 200_001), -torch.logspace(-30, 2, 10_000), torch.logspace(-30, 2, 10_000)])
    x.requires_grad_()
    with compiling(compiled):
        y = softplus(x)
    exact = torch.nn.functional.softplus(x.detach().double(), threshold=1000)
    normal_numbers = exact > torch.finfo(torch.float32).tiny
    error = ((y.detach() - exact) / exact)[normal_numbers].abs().max().item()
    assert error < 4 * torch.finfo(torch.float32).eps
    y.sum().backward()
    torch.testing.assert_close(x.grad.double(), x.detach().double().sigmoid(), rtol=1e-5, atol=1e-37)


@pytest.mark.slow
@pytest.mark.parametrize("method", [BBB(), LRT(), Flipout(), GaussianS(), Sparse()], ids=lambda m: type(m).__name__)
def test_compiled_networks_have_the_same_distribution(method):
    torch.manual_seed(0)
    net = bayesianize(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)), method)
    x = channels_last(torch.randn(1, 1, 6, 6))
    draws = 4000
    samples = []
    for compiled in (False, True):
        for layer in bayesian_layers(net):
            layer.compiles = compiled
        with torch.no_grad():
            samples.append(torch.cat([net(x) for _ in range(draws)]).double())
    eager, compiled = samples
    # The difference of two means of n draws has the standard error sqrt(2 var / n), that of log variances sqrt(4 / n)
    # for normal numbers; logits behind a relu are not quite normal, and get twice as much.
    assert ((eager.mean(0) - compiled.mean(0)).abs() < 5 * (2 * eager.var(0) / draws).sqrt()).all()
    assert ((eager.var(0) / compiled.var(0)).log().abs() < 2 * 5 * (4 / draws) ** 0.5).all()


def test_what_cannot_be_compiled_is_said_in_a_sentence():
    from torch._inductor import config

    torch._dynamo.reset()
    sentence = r"^compile must be false on this machine, where inductor cannot compile: "
    with config.patch({"cpp.cxx": (None, "/nowhere/g++")}), pytest.raises(ValueError, match=sentence):
        check_compiler(torch.device("cpu"))
    torch._dynamo.reset()
    assert check_compiler(torch.device("cpu")) is None  # nothing of it is left for other tests
