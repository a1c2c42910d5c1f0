"""What is computed again or in blocks so that it stays in the cache, and what the allocator keeps."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from bnn_lightning import BBB, LRT, bayesianize, kl
from bnn_lightning.core.kernels.memory import channels_last, keep_freed_memory


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
    by_func = torch.func.grad(loss, argnums=(0, 1))(parameters, x)
    x.requires_grad_()
    expected = torch.autograd.grad(loss(parameters, x), (*parameters.values(), x))
    torch.testing.assert_close((*by_func[0].values(), by_func[1]), expected)


def test_kl_of_large_tensors_is_that_of_their_parts():
    # Large tensors go through in blocks, with priors of one number; small ones together.
    torch.manual_seed(0)
    chain = nn.Sequential(nn.Linear(300, 400), nn.Linear(400, 2))
    net = bayesianize(chain, BBB(prior_sigma=0.125, rho_init=(-2.0, 1.0))).double()
    expected, gradients = 0.0, []
    for layer in net:
        for posterior in (layer.weight, layer.bias):
            sigma = np.log1p(np.exp(posterior.rho.detach().numpy()))
            mu = posterior.mu.detach().numpy()
            expected += (np.log(0.125 / sigma) + (sigma**2 + mu**2) / (2 * 0.125**2) - 0.5).sum()
            rho_gradient = (sigma / 0.125**2 - 1 / sigma) / (1 + np.exp(-posterior.rho.detach().numpy()))
            gradients += [mu / 0.125**2, rho_gradient]
    divergence = kl(net)
    assert divergence.item() == pytest.approx(expected, rel=1e-12)
    divergence.backward()
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        np.testing.assert_allclose(parameter.grad.numpy(), gradient, rtol=1e-10, atol=1e-12)


def run(code, **environment):
    words = [sys.executable, "-c", code]
    cleared = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    return subprocess.run(words, env=cleared | environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_freed_memory_is_kept_where_glibc_is_the_allocator(monkeypatch):
    # Page faults of a 64 MiB block that is made and freed again and again: 16,384 of 4 KiB each time, or none.
    faults = """
import resource, torch
from bnn_lightning import keep_freed_memory
kept = keep_freed_memory() if KEEP else False
for _ in range(20): torch.ones(2**24)  # aligned blocks move through the 256 MiB that the heap grew by
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
