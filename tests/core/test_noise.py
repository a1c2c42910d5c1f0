"""Noise: Philox against its authors' numbers and N(0, 1); compiled code and code that stays in the cache."""

import math
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from bnn_lightning import BBB, LRT, Flipout, GaussianS, Sparse, ThreeConvThreeFC, bayesianize, kl
from bnn_lightning.core.kernels import local_noise as local
from bnn_lightning.core.kernels.compiling import check_compiler, compiling
from bnn_lightning.core.kernels.memory import channels_last, is_channels_last, keep_freed_memory
from bnn_lightning.core.kernels.noise import new_key, philox, philox_normal, philox_words, standard_normal_like
from bnn_lightning.core.kernels.softplus import softplus
from bnn_lightning.core.whole_network import bayesian_layers

COUNT = 1_000_000


# The known answers for Philox-4x32-10 that its authors publish with Random123: counter, key, result.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_published_words(counter, key, expected):
    def words(text):
        return tuple(torch.tensor([int(word, 16)]) for word in text.split())

    assert philox_words(words(counter), words(key), 10) == words(expected)


def test_philox_counts_in_the_low_words():
    counter = torch.tensor([5, (7 << 32) + 5])
    found = torch.stack(philox(counter, torch.tensor([1, 2])), 1)
    for row, high in zip(found, (0, 7), strict=True):
        words = tuple(torch.tensor(word) for word in (5, high, 0, 0))
        assert row.tolist() == [word.item() for word in philox_words(words, (torch.tensor(1), torch.tensor(2)), 10)]


def normal(seed):
    torch.manual_seed(seed)
    return philox_normal(COUNT // 4, new_key(torch.zeros(())))


def test_moments():
    z = normal(0).double()
    # The variance of the k-th power's mean is (E z^2k - (E z^k)^2) / n.
    for power, expected, second in ((1, 0, 1), (2, 1, 3), (3, 0, 15), (4, 3, 105), (6, 15, 10395)):
        error = math.sqrt((second - expected**2) / COUNT)
        assert abs(z.pow(power).mean().item() - expected) < 5 * error


def test_distribution_function():
    # Kolmogorov and Smirnov: sqrt(n) D exceeds 2.23 with probability 1e-4.
    z = normal(1).double().sort().values
    expected = torch.special.ndtr(z)
    steps = torch.arange(1, COUNT + 1, dtype=torch.float64) / COUNT
    distance = torch.maximum((steps - expected).abs().max(), (steps - 1 / COUNT - expected).abs().max())
    assert math.sqrt(COUNT) * distance < 2.23


def test_tails():
    # Beyond 5 sigma there are 5.7e-7 of all numbers, within five standard deviations of a Poisson count.
    key = torch.tensor([11, 12])
    z = torch.cat([philox_normal(COUNT, key + torch.tensor([0, shift])) for shift in range(10)])
    for bound in (3, 4, 5):
        expected = len(z) * math.erfc(bound / math.sqrt(2))
        for found in ((z > bound).sum(), (z < -bound).sum()):
            assert abs(found.item() - expected / 2) < 5 * math.sqrt(expected / 2)
    assert z.abs().max() < 6.8


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 7, 64, 1000, COUNT // 4, COUNT // 2])
def test_neither_numbers_nor_squares_are_correlated_across_lags(lag):
    z = normal(2).double()
    count = COUNT - lag
    for values, variance in ((z, 1), (z.square() - 1, 4)):
        assert abs((values[lag:] * values[:-lag]).mean().item()) < 5 * variance / math.sqrt(count)


@pytest.mark.parametrize("change", [(0, 1), (1, 0), (1 << 31, 0), (0, 1 << 16)])
def test_close_keys_give_unrelated_numbers(change):
    key = torch.tensor([3, 4])
    first, second = (philox_normal(COUNT // 4, one).double() for one in (key, key ^ torch.tensor(change)))
    assert abs((first * second).mean().item()) < 5 / math.sqrt(COUNT)
    assert abs(((first.square() - 1) * (second.square() - 1)).mean().item()) < 5 * 2 / math.sqrt(COUNT)


def test_keys_come_from_torchs_generator():
    torch.manual_seed(5)
    first, second = new_key(torch.zeros(1)), new_key(torch.zeros(1))
    torch.manual_seed(5)
    assert torch.equal(new_key(torch.zeros(1)), first)
    assert not torch.equal(first, second)
    assert min(first.min(), second.min()) >= 0
    assert max(first.max(), second.max()) < 1 << 32


def test_noise_lies_in_memory_as_what_it_is_for():
    for x in (torch.zeros(2, 3, 4, 5), torch.zeros(2, 3), torch.zeros(())):
        assert standard_normal_like(x).stride() == x.stride()
    x = torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert is_channels_last(standard_normal_like(x))


@pytest.mark.parametrize("make", [lambda: nn.Conv2d(1, 3, 3), lambda: nn.Conv2d(2, 3, 3), lambda: nn.Linear(6, 4)])
def test_gradients_by_torch_func_are_those_of_backward(make):
    # There backward keeps the square of the input; elsewhere it computes it again.
    torch.manual_seed(0)
    layer = bayesianize(make(), LRT())
    x = torch.randn(5, 6) if isinstance(make(), nn.Linear) else channels_last(torch.randn(5, make().in_channels, 6, 6))

    def loss(parameters, x):
        torch.manual_seed(1)
        return torch.func.functional_call(layer, parameters, (x,)).square().sum()

    parameters = dict(layer.named_parameters())
    found = torch.func.grad(loss, argnums=(0, 1))(parameters, x)
    x.requires_grad_()
    expected = torch.autograd.grad(loss(parameters, x), (*parameters.values(), x))
    torch.testing.assert_close((*found[0].values(), found[1]), expected)


# Compiled code: the loops that inductor makes are those of the formulas, given the same noise.


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
        zeta = philox_normal(padded // 4, new_key(mean))[:count].view(shape)
        std = (variance + 1e-16).sqrt()
        torch.testing.assert_close(y, mean + std * zeta, rtol=2e-6, atol=2e-6)
        upstream = torch.randn(shape)
        found = torch.autograd.grad(y, (mean, variance), upstream)
        expected = torch.autograd.grad(mean + std * zeta, (mean, variance), upstream)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


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
        torch.testing.assert_close(*(one.grad for one in parameters), rtol=1e-4, atol=1e-5)


def test_layers_that_compile_can_be_compiled_by_someone_else():
    net = bayesianize(nn.Sequential(nn.Linear(4, 3)), LRT())
    for layer in bayesian_layers(net):
        layer.compiles = True
    torch._dynamo.reset()

    @torch.compile(backend="eager", fullgraph=True)
    def loss(x):
        return net(x).square().sum(), kl(net)

    torch.testing.assert_close(loss(torch.randn(2, 4))[1], kl(net))


def test_kl_of_large_tensors_is_that_of_their_parts():
    # Large tensors go through in blocks, with priors of one number; small ones together.
    torch.manual_seed(0)
    chain = nn.Sequential(nn.Linear(300, 400), nn.Linear(400, 2))
    net = bayesianize(chain, BBB(prior_sigma=0.125, rho_init=(-2.0, 1.0))).double()
    expected, gradients = 0.0, []
    for layer in net:
        for one in (layer.weight, layer.bias):
            sigma = np.log1p(np.exp(one.rho.detach().numpy()))
            mu = one.mu.detach().numpy()
            expected += (np.log(0.125 / sigma) + (sigma**2 + mu**2) / (2 * 0.125**2) - 0.5).sum()
            in_rho = (sigma / 0.125**2 - 1 / sigma) / (1 + np.exp(-one.rho.detach().numpy()))
            gradients += [mu / 0.125**2, in_rho]
    found = kl(net)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    found.backward()
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        np.testing.assert_allclose(parameter.grad.numpy(), gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("compiled", [False, True])
def test_softplus_to_rounding(compiled):
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


@pytest.mark.parametrize("method", [BBB(), LRT(), Flipout(), GaussianS(), Sparse()], ids=lambda m: type(m).__name__)
def test_compiled_networks_have_the_same_distribution(method):
    torch.manual_seed(0)
    net = bayesianize(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)), method)
    x = channels_last(torch.randn(1, 1, 6, 6))
    draws = 4000
    found = []
    for compiled in (False, True):
        for layer in bayesian_layers(net):
            layer.compiles = compiled
        with torch.no_grad():
            found.append(torch.cat([net(x) for _ in range(draws)]).double())
    eager, compiled = found
    # The difference of two means of n draws has the standard error sqrt(2 var / n), that of log variances sqrt(4 / n)
    # for normal numbers; logits behind a relu are not quite normal, and get twice as much.
    assert ((eager.mean(0) - compiled.mean(0)).abs() < 5 * (2 * eager.var(0) / draws).sqrt()).all()
    assert ((eager.var(0) / compiled.var(0)).log().abs() < 2 * 5 * (4 / draws) ** 0.5).all()


def test_what_cannot_be_compiled_is_said_in_a_sentence(monkeypatch):
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (None, "/nowhere/g++"))
    torch._dynamo.reset()
    with pytest.raises(ValueError, match=r"^compile must be false on this machine, where inductor cannot compile: "):
        check_compiler(torch.device("cpu"))
    torch._dynamo.reset()


def run(code, **environment):
    words = [sys.executable, "-c", code]
    cleared = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    return subprocess.run(words, env=cleared | environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_freed_memory_is_kept_where_glibc_is_the_allocator(monkeypatch):
    # Page faults of a 64 MiB block that is made and freed again and again: 16,384 of 4 KiB each time, or none.
    faults = """
import resource, torch
from bnn_lightning import keep_freed_memory
kept = keep_freed_memory() if KEEP else False
for _ in range(5): torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): torch.ones(2**24)
print(kept, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 5)
"""
    kept, count = run(faults.replace("KEEP", "True")).split()
    assert kept == "True"
    kept, without = run(faults.replace("KEEP", "False")).split()
    assert int(without) > 10 * max(int(count), 1)
    for name, value in (("MALLOC_ARENA_MAX_", "2"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")):
        with monkeypatch.context() as theirs:
            theirs.setenv(name, value)
            assert not keep_freed_memory()
