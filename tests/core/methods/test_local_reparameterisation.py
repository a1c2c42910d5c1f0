"""The local reparameterisation: its variances, gradients and square roots."""

import pytest
import torch
from torch import nn

from bnn_lightning.core.kernels import compiling
from bnn_lightning.core.kernels.local_noise import with_noise
from bnn_lightning.core.layers import BayesianLayer
from bnn_lightning.core.methods import BBB, LRT

pytestmark = pytest.mark.usefixtures("as_small_and_as_large")

F64 = torch.float64


def test_lrt_variance_does_not_see_the_mean_of_the_bias():
    # A mean bias in the variance path gives a negative variance, then NaN.
    plain = nn.Conv2d(1, 2, 3, padding=1)
    layer = BayesianLayer(plain, LRT(rho_init=(-1.0, 0.1)))
    x = torch.randn(64, 1, 5, 5)
    torch.manual_seed(1)
    before = layer(x)
    with torch.no_grad():
        layer.bias.mu.fill_(-100.0)
    torch.manual_seed(1)
    after = layer(x)
    assert torch.isfinite(after).all()
    torch.testing.assert_close(
        after - layer.bias.mu.view(1, -1, 1, 1), before - plain.bias.view(1, -1, 1, 1), atol=1e-4, rtol=0
    )


def test_lrt_gradients_are_finite_on_blank_images():
    # Without eps the square root's gradient is infinite where the variance is exactly zero.
    layer = BayesianLayer(nn.Conv2d(1, 2, 3, padding=1, bias=False), LRT())
    x = torch.zeros(2, 1, 5, 5, requires_grad=True)
    layer(x).sum().backward()
    for gradient in (x.grad, layer.weight.mu.grad, layer.weight.rho.grad):
        assert torch.isfinite(gradient).all()


def test_variances_below_zero_are_zero():
    # What convolutions by Winograd's algorithm leave of 0 beside bright pixels.
    mean = torch.arange(16.0)
    variance = torch.tensor([-1e-7, 0.25]).repeat(8)

    def drawn(variance):
        return with_noise(mean, variance)

    def of_one(variance):
        return torch.vmap(drawn, randomness="different")(variance.unsqueeze(0)).squeeze(0)

    for draw in (drawn, of_one, torch.compile(drawn, backend="eager", fullgraph=True)):
        v = variance.clone().requires_grad_()
        y = draw(v)
        torch.testing.assert_close(y[::2], mean[::2], rtol=0, atol=1e-6)  # sqrt(eps) = 1e-8 is left
        assert (y[1::2] != mean[1::2]).all()
        y.sum().backward()
        assert (v.grad[::2] == 0).all()
        assert (v.grad[1::2] != 0).all()


def test_the_gradients_of_local_noise_are_those_of_finite_differences():
    # The backward pass is written by hand; with the noise held fixed it can be checked by differences.
    def draw(mean, variance):
        torch.manual_seed(0)
        return with_noise(mean, variance)

    mean = torch.randn(5, dtype=F64, requires_grad=True)
    variance = torch.rand(5, dtype=F64).add(0.1).requires_grad_()
    noise = draw(torch.zeros(5, dtype=F64), torch.ones(5, dtype=F64))
    assert torch.autograd.gradcheck(draw, (mean, variance))
    torch.testing.assert_close(draw(mean, variance), mean + variance.sqrt() * noise)


def test_lrt_gradients_vary_less_than_bbb():
    # What the local reparameterisation is for, at a batch of 128.
    x, labels = torch.randn(128, 20), torch.randint(0, 5, (128,))
    plain = nn.Linear(20, 5)

    def total_variance(method):
        layer = BayesianLayer(plain, method(rho_init=(-2.0, 0.0)))
        gradients = []
        for _ in range(400):
            layer.zero_grad()
            nn.functional.cross_entropy(layer(x), labels).backward()
            gradients.append(torch.cat([layer.weight.mu.grad.flatten(), layer.weight.rho.grad.flatten()]))
        return torch.stack(gradients).var(0).sum()

    assert total_variance(LRT) < 0.5 * total_variance(BBB)


def test_second_derivatives_of_large_layers_are_refused_rather_than_wrong(monkeypatch):
    monkeypatch.setattr(compiling, "_SMALL", -1)
    layer = BayesianLayer(nn.Linear(3, 2), LRT())
    (gradient,) = torch.autograd.grad(layer(torch.randn(4, 3)).square().sum(), layer.weight.rho, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
